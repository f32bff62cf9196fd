"""Two processes on the CPU (gloo), DDP by accelerate and FSDP2: the losses and parameters of one process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.distributed_worker import train


def two_processes(mode: str, variants: list[str], out: Path) -> Any:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.training.distributed_worker", mode, str(out), *variants]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out)


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_equal_to_one_process(mode: str, tmp_path: Path) -> None:
    """`wide` holds blocks of the whole model and a module at the embedding: FSDP2 keeps them at the root.
    Virtual tokens go through the sharded model before the input does."""
    results = two_processes(mode, ["mixed", "wide", "prompt-tuning"], tmp_path / "two.pt")
    for variant, two in results.items():
        one = train("plain", variant)
        assert (one["world"], two["world"]) == (1, 2)
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
        for a, b in zip(one["parameters"], two["parameters"], strict=True):
            assert torch.allclose(a, b, atol=1e-5)
