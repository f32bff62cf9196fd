"""Adapters go to the Hub and come back: real huggingface_hub calls against a Hub that runs here."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load

import ctxpeft
from ctxpeft.adapters.hub import FILES
from ctxpeft.testing.tiny import perturb, tiny_model
from tests.adapters.hub_server import Hub

PUSH = """
import ctxpeft
from ctxpeft.testing.tiny import perturb, tiny_model
model = tiny_model()
handle = ctxpeft.attach(model, "prefix-tuning-plus", seed=0)
perturb(handle)
print(handle.push_to_hub("me/memory", private=True, token="hf_none"))
"""
LOAD = """
import sys, torch, ctxpeft
from ctxpeft.testing.tiny import tiny_model
for source in sys.argv[1:]:
    model = tiny_model()
    try:
        handle = ctxpeft.load(model, source)
    except ctxpeft.AdapterError as error:
        print("refused:", str(error).split(" (")[0])
    else:
        print(handle.variant.name, float(model(torch.arange(3, 12)[None]).logits.double().sum()))
"""
REFUSED = """
import ctxpeft
from ctxpeft.testing.tiny import tiny_model
handle = ctxpeft.attach(tiny_model(), "prefix-tuning-plus", seed=0)
for name in ("me/memory", "not a name"):
    try:
        handle.push_to_hub(name)
    except ctxpeft.AdapterError as error:
        print(error)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


def python(code: str, hub: Hub, cache: Path, *arguments: str, offline: bool = False) -> str:
    """Standard output of a program that knows no other Hub than ours."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def expected(handle: ctxpeft.Handle) -> str:
    logits = handle.model(torch.arange(3, 12)[None]).logits.detach()
    return f"prefix-tuning-plus {float(logits.double().sum())}"


def test_there_and_back(hub: Hub, tmp_path: Path) -> None:
    """Pushed; loaded over the network; loaded again from the cache with HF_HUB_OFFLINE=1 and no Hub at all."""
    url = python(PUSH, hub, tmp_path / "pusher")
    assert url.startswith(f"{hub.url}/me/memory/commit/")
    assert hub.visibility == {"me/memory": "private"}
    handle = ctxpeft.attach(tiny_model(), "prefix-tuning-plus", seed=0)
    perturb(handle)
    handle.save(tmp_path / "saved")
    check_upload(hub.repositories["me/memory"], tmp_path / "saved")
    assert python(LOAD, hub, tmp_path / "cache", "me/memory") == expected(handle)
    hub.close()
    assert python(LOAD, hub, tmp_path / "cache", "me/memory", "me/other", offline=True) == (
        f"{expected(handle)}\nrefused: me/other: neither a local folder nor a repository the Hub would give"
    )


def check_upload(uploaded: dict[str, bytes], saved: Path) -> None:
    """The repository holds the saved folder; only the card's address differs."""
    assert set(uploaded) == set(FILES)
    assert uploaded["variant.yaml"] == (saved / "variant.yaml").read_bytes()
    ours, theirs = load((saved / "adapter.safetensors").read_bytes()), load(uploaded["adapter.safetensors"])
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    card = uploaded["README.md"].decode()
    assert card == (saved / "README.md").read_text().replace("path/to/this/folder", "me/memory")
    assert yaml.safe_load(card.split("---")[1]) == {
        "library_name": "ctxpeft",
        "base_model": "LlamaForCausalLM",
        "tags": ["ctxpeft", "peft", "prefix-tuning-plus"],
    }


def test_refusals_are_one_sentence(hub: Hub, tmp_path: Path) -> None:
    told = python(REFUSED, hub, tmp_path, offline=True).splitlines()
    assert len(told) == 2
    assert told[0].startswith("me/memory: cannot be uploaded to the Hub (")
    assert told[1].startswith("not a name: cannot be uploaded to the Hub (")
