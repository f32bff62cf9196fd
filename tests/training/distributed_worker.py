"""One process of a distributed training: `distributed_worker MODE OUT VARIANT...`, started by torchrun or alone.

MODE: `plain` (no wrapper), `ddp` (accelerate), `fsdp` (FSDP2: every decoder layer and the model sharded). Writes
for every variant the losses of each step, averaged over the processes, and the adapter's parameters after the last.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

import ctxpeft
from ctxpeft.testing.tiny import perturb, tiny_model
from tests.hosts.cases import VARIANTS

STEPS = 3


def train(mode: str, variant: str) -> dict[str, Any]:
    """Three steps on the same global batches, whatever the number of processes."""
    torch.set_num_threads(1)
    model: Any = tiny_model().train()
    handle = ctxpeft.attach(model, VARIANTS.get(variant, variant), seed=0)
    perturb(handle)
    if mode == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        if not distributed.is_initialized():
            distributed.init_process_group("gloo")
        mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        assert all(type(p.data).__name__ == "DTensor" for p in handle.parameters())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    wrapped = model
    if mode == "ddp":
        from accelerate import Accelerator

        wrapped, optimizer = Accelerator(cpu=True).prepare(model, optimizer)
        assert type(wrapped).__name__ == "DistributedDataParallel"
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if mode != "plain" else (0, 1)
    data = torch.randint(3, 61, (STEPS, 4, 8), generator=torch.Generator().manual_seed(0))
    losses = []
    for batch in data:
        mine = batch.chunk(world)[rank]
        loss = wrapped(input_ids=mine, labels=mine).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total = loss.detach().clone()
        if world > 1:
            distributed.all_reduce(total)
        losses.append(float(total) / world)
    parameters = [getattr(p, "full_tensor", lambda p=p: p)().detach().clone() for p in handle.parameters()]
    return {"losses": losses, "parameters": parameters, "world": world}


if __name__ == "__main__":
    mode, out, *variants = sys.argv[1:]
    results = {variant: train(mode, variant) for variant in variants}
    if distributed.get_rank() == 0:
        torch.save(results, Path(out))
    distributed.barrier()
    distributed.destroy_process_group()
    os._exit(
        0
    )  # all is written; a thread of gloo that outlives its group aborts the interpreter's own way out
