"""Without a network the hub is not asked: one sentence at once, and no warnings of its client."""

from __future__ import annotations

import socket
import time

import pytest

from ctxpeft.adapters.load import load
from ctxpeft.cli import main
from ctxpeft.data import mini_model_path
from ctxpeft.errors import AdapterError
from ctxpeft.online import hub_settings


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No address resolves, and nothing told the hub's client so."""

    def refuse(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("ctxpeft.online.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "command",
    [
        ["show", "prefix-tuning", "--model", "nobody/nothing-here"],
        ["check", "prefix-tuning", "--model", "nobody/nothing-here"],
        ["eval", "--model", "nobody/nothing-here", "--task", "docstring-area"],
    ],
)
def test_an_unknown_model_is_one_sentence_at_once(
    command: list[str], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    assert main(command) == 2
    assert time.monotonic() - began < 15, "seconds; the client's retries take 20 and more"
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("error: model 'nobody/nothing-here' cannot be loaded")
    assert told[0].endswith("nothing in the hub's cache, and huggingface.co cannot be reached from here")
    assert not [record for record in caplog.records if "Retrying" in record.getMessage()]


@pytest.mark.usefixtures("offline")
def test_an_unknown_adapter_likewise(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AdapterError, match="cannot be reached from here"):
        load(None, "nobody/nothing-here")  # type: ignore[arg-type]
    assert not caplog.records


@pytest.mark.usefixtures("offline")
def test_a_folder_and_a_proxy_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_settings("nobody/nothing-here") == {"local_files_only": True}
    assert hub_settings(str(mini_model_path())) == {}
    monkeypatch.setattr("ctxpeft.online.getproxies", lambda: {"https": "http://proxy"})
    assert hub_settings("nobody/nothing-here") == {}


def test_where_the_address_resolves_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    assert hub_settings("nobody/nothing-here") == {}
