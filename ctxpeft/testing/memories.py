"""What every memory must satisfy. A third party subclasses it with its own specs."""

from __future__ import annotations

from typing import Any

import torch

from ctxpeft.blocks.capture import Read
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.testing.heads import Heads


class MemoryConformance:
    """Subclass it, set `module` (a module of a variant, as data, that uses the memory), and pytest runs the laws.

    class TestMyMemory(MemoryConformance):
        module = {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "mine"}}
    """

    module: dict[str, Any]

    def _heads(self, batch: int = 2, tokens: int = 4) -> Heads:
        return Heads.random(
            0, batch, kv_heads=2, repeat=2, tokens=tokens, width=4, value_width=4, mask="causal"
        )

    def _raw(self, heads: Heads) -> tuple[ContextModule, Read]:
        """The memory's own answer, before any normaliser or gate."""
        built = heads.module(self.module)
        read = built.ask(built.query(heads.capture()), heads.capture())
        return built, read

    def test_shapes(self) -> None:
        """n (B, G, N, dv); c and, unless it is 1, m (B, G, N) exactly when a mass is needed."""
        built, read = self._raw(self._heads())
        folded = (2, built.grouping.groups, 16 // built.grouping.groups)
        assert read.n.shape == (*folded, 4)
        assert read.m is None or read.c is not None
        if built.spec.needs_mass():
            assert read.c is not None
            assert read.c.shape == folded
            assert read.m is None or read.m.shape == folded

    def test_mass_is_positive(self) -> None:
        """A mass is a sum of exponentials or of positive features: it is never negative."""
        _, read = self._raw(self._heads())
        assert read.m is None or float(read.m.detach().min()) >= 0

    def test_zero_read_is_declared(self) -> None:
        """A memory that claims a zero read at init reads exactly zero; one that does not, does not."""
        heads = self._heads()
        built = heads.module(self.module)
        fresh = ContextModule(built.spec, heads.shape())
        read, _ = fresh.read(heads.capture())
        assert bool((read.n == 0).all()) == built.spec.memory.zero_read_at_init()

    def test_every_parameter_is_used(self) -> None:
        """The read depends on every parameter of the memory."""
        built, read = self._raw(self._heads())
        total = read.n.square().sum()
        if read.c is not None:
            mass = torch.exp(read.c) if read.m is None else read.m * torch.exp(read.c)
            total = total + mass.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in built.memory.parameters())

    def test_rows_do_not_look_at_each_other(self) -> None:
        """The answer to one token does not depend on another token or row."""
        heads = self._heads()
        built = heads.module(self.module)
        before, _ = built.read(heads.capture())
        heads.query.data[0, :, -1] += 1.0
        after, _ = built.read(heads.capture())
        assert torch.allclose(before.n[0, :, :-1], after.n[0, :, :-1], rtol=1e-12, atol=1e-12)
        assert torch.allclose(before.n[1], after.n[1], rtol=1e-12, atol=1e-12)

    def test_deployed_parameters(self) -> None:
        """What is deployed is not negative and is counted."""
        built = self._heads().module(self.module)
        assert built.deployed_parameters() >= 0
