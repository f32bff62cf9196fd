"""Whether the Hugging Face hub can be asked at all: its client tries an unknown address for most of a minute."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

MISSING = "no folder of that name, nothing in the hub's cache"


def hub_settings(source: str) -> dict[str, bool]:
    """What `from_pretrained` and `snapshot_download` are told beside the name.

    Args:
        source: a hub id or a local folder.

    Returns:
        `local_files_only` where the address of the hub does not resolve: the cache is then asked at once, with no
        retries and no warnings. Nothing for a folder, or where a proxy resolves addresses.
    """
    if Path(source).is_dir() or {"https", "http", "all"} & getproxies().keys():
        return {}
    try:
        socket.getaddrinfo(_host(), None)
    except OSError:
        return {"local_files_only": True}
    return {}


def without_network(error: BaseException, settings: dict[str, bool]) -> str:
    """Why something of the hub was not found, in place of the client's reason; empty where the hub was asked."""
    if not settings or not isinstance(error, OSError):
        return ""
    return f"{MISSING}, and {_host()} cannot be reached from here"


def _host() -> str | None:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).hostname
