"""Shipped tasks are found by name, and a changed byte is noticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ctxpeft.data import mini_model_path, task_names, task_path, verify_snapshot
from ctxpeft.data._shipped import verify_folder
from ctxpeft.errors import DataError


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(task_path("docstring-area"), tmp_path / "docstring-area"))


def test_names_and_paths() -> None:
    assert "docstring-area" in task_names()
    assert mini_model_path().is_dir()
    for name in task_names():
        assert (task_path(name) / "manifest.json").is_file()


@pytest.mark.parametrize("name", task_names())
def test_shipped_files_are_what_was_shipped(name: str) -> None:
    verify_snapshot(name)
    assert sum(path.stat().st_size for path in task_path(name).iterdir()) < 3_000_000


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'docstring-area'"):
        task_path("docstring-aera")


def test_tampering_raises(copied: Path) -> None:
    verify_folder(copied)
    with (copied / "test.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "one more", "label": "text"}) + "\n")
    with pytest.raises(DataError, match=r"docstring-area/test\.jsonl is not the file"):
        verify_folder(copied)


def test_missing_file_raises(copied: Path) -> None:
    (copied / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"train\.jsonl is missing"):
        verify_folder(copied)


def test_missing_manifest_raises(copied: Path) -> None:
    (copied / "manifest.json").unlink()
    with pytest.raises(DataError, match="no readable manifest"):
        verify_folder(copied)
