"""Threads, hypothesis and the real inputs that tests share."""

from __future__ import annotations

import os
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

torch.set_num_threads(1)

settings.register_profile(
    "ctxpeft", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "mutants",
    settings.get_profile("ctxpeft"),
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ctxpeft"))

REPOSITORY = Path(__file__).parents[1]
collect_ignore = ["third_party/ctxpeft-example"]  # the tests of a package that is not installed here


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data: $CTXPEFT_SHARED, or `shared` beside the checkout."""
    folder = Path(os.environ.get("CTXPEFT_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real models and data at {folder}; set CTXPEFT_SHARED to their folder")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY
