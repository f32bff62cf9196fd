"""An adapter on the Hugging Face Hub: a repository that holds the saved folder and nothing else."""

from __future__ import annotations

import tempfile
from typing import Any

from ctxpeft.adapters.layout import CARD, VARIANT, WEIGHTS
from ctxpeft.adapters.save import save
from ctxpeft.errors import AdapterError
from ctxpeft.hosts.handle import BaseHandle

FILES = (VARIANT, WEIGHTS, CARD)


def push(
    handle: BaseHandle,
    repo_id: str,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a ctxpeft adapter",
    create_pr: bool = False,
) -> str:
    """Create the repository where there is none and upload the saved adapter in one commit; returns the commit's URL.

    The card names the repository, so that its example runs as it stands. Raises AdapterError where the Hub refuses or
    cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi(token=token)
    options: dict[str, Any] = {"revision": revision, "create_pr": create_pr, "commit_message": commit_message}
    try:
        with tempfile.TemporaryDirectory() as folder:
            save(handle, folder, repo_id)
            repo = api.create_repo(repo_id, private=private, exist_ok=True)
            found = api.upload_folder(
                repo_id=repo.repo_id, folder_path=folder, allow_patterns=list(FILES), **options
            )
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise AdapterError(f"{repo_id}: cannot be uploaded to the Hub ({reason})") from None
    return str(found.commit_url)
