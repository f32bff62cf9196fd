"""Saves that are cut off: what was there before or what was to be written, never half of one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ctxpeft
from ctxpeft.errors import AdapterError
from ctxpeft.files import STALE_SECONDS, write_text
from ctxpeft.testing.tiny import tiny_model
from tests.reliability.saves import Target, cut, full, targets

RANDOM_KILLS = 10


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_killed_anywhere(target: Target, tmp_path: Path) -> None:
    twice = "another method" in target.name
    tally = cut(target, tmp_path, RANDOM_KILLS, twice=twice)
    assert tally.steps >= 4
    assert tally.kills == tally.steps + tally.twice + RANDOM_KILLS
    assert tally.twice > tally.steps or not twice
    assert tally.half == 0
    assert tally.old
    assert tally.new
    assert tally.neither == 0 or target.name == "an export to HF PEFT, another size"


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_a_full_disk_says_so_and_keeps_what_was_there(target: Target, tmp_path: Path) -> None:
    told, kept, left = full(target, tmp_path, room=300)
    assert "File too large" in told
    assert str(tmp_path) in told
    assert kept
    assert left == []


def test_a_save_that_was_cut_off_loads_as_the_new_one(tmp_path: Path) -> None:
    """Killed right after the weights were replaced: their spec lies beside them."""
    old, new = tmp_path / "old", tmp_path / "new"
    ctxpeft.attach(tiny_model(), "prefix-tuning-plus", seed=0).save(old)
    ctxpeft.attach(tiny_model(), "prefix-tuning", seed=0).save(new)
    shutil.copy(new / "adapter.safetensors", old / "adapter.safetensors")
    with pytest.raises(AdapterError, match="belong to another spec"):
        ctxpeft.load(tiny_model(), old)
    shutil.copy(new / "variant.yaml", old / ".variant.yaml.next")
    assert ctxpeft.load(tiny_model(), old).variant.name == "prefix-tuning"
    ctxpeft.attach(tiny_model(), "prefix-tuning-plus", seed=0).save(old)
    assert sorted(os.listdir(old)) == ["README.md", "adapter.safetensors", "variant.yaml"]


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a[1].txt"
    old, fresh, other = (tmp_path / f".{name}.x.tmp" for name in ("a[1].txt", "a[1].txt.y", "b.txt"))
    held = tmp_path / ".a[1].txt.held.tmp"
    for file in (old, fresh, other, held):
        file.write_text("left")
        if file != fresh:
            os.utime(file, (time.time() - 2 * STALE_SECONDS,) * 2)
    code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(held)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        write_text(path, "new")
        assert sorted(tmp_path.iterdir()) == sorted([path, fresh, other, held])
        holder.communicate("\n")


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("adapter.safetensors", "variant.yaml", "README.md", ".variant.yaml.next"):
        (folder / name).symlink_to(tmp_path / "precious")
    ctxpeft.attach(tiny_model(), "prefix-tuning", seed=0).save(folder)
    assert (tmp_path / "precious").read_text() == "mine"
    assert ctxpeft.load(tiny_model(), folder).variant.name == "prefix-tuning"
