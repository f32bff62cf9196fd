"""What every gate must satisfy. A third party subclasses it with its own specs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.spec.blocks import GateSpec
from ctxpeft.testing.heads import Heads


class GateConformance:
    """Subclass it, set `gate` (a spec, or one as data), and pytest runs the laws on it.

    class TestMyGate(GateConformance):
        gate = MyGate(activation="tanh")
    """

    gate: GateSpec | dict[str, Any]

    def _module(self, heads: Heads, fresh: bool = False) -> ContextModule:
        spec = {"placement": "outside", "memory": {"kind": "vector"}, "gate": self.gate}
        built = heads.module(spec)
        return ContextModule(built.spec, heads.shape()) if fresh else built

    def _heads(self) -> Heads:
        return Heads.random(0, 2, kv_heads=2, repeat=2, tokens=4, width=3, value_width=5, mask="causal")

    def _value(self, module: ContextModule, heads: Heads) -> Tensor | None:
        capture = heads.capture()
        value: Tensor | None = module.gate(capture, module.query(capture))
        return value

    def test_shape(self) -> None:
        """Four dimensions, each 1 or that of (B, H, T, dv)."""
        heads = self._heads()
        value = self._value(self._module(heads), heads)
        if value is not None:
            assert value.ndim == 4
            assert all(have in (1, full) for have, full in zip(value.shape, (2, 4, 4, 5), strict=True))
            assert (value.shape[-1] == 5) == self._module(heads).spec.gate.per_channel()

    def test_zero_at_init_is_declared(self) -> None:
        """A gate that claims to start closed is exactly zero; one that does not is nowhere zero."""
        heads = self._heads()
        module = self._module(heads, fresh=True)
        value = self._value(module, heads)
        closed = value is not None and bool((value == 0).all())
        assert closed == module.spec.gate.is_zero_at_init()

    def test_one_at_init_is_exact(self) -> None:
        """A gate that claims to start fully open is exactly one there."""
        heads = self._heads()
        module = self._module(heads, fresh=True)
        value = self._value(module, heads)
        if module.spec.gate.is_one_at_init():
            assert value is None or bool((value == 1).all())

    def test_positive_is_declared(self) -> None:
        """A gate that claims to be positive is, wherever its parameters go."""
        heads = self._heads()
        module = self._module(heads)
        for seed in range(5):
            torch.manual_seed(seed)
            for parameter in module.parameters():
                parameter.data.normal_(std=3.0)
            value = self._value(module, heads)
            if module.spec.gate.is_positive() and value is not None:
                assert float(value.detach().min()) > 0

    def test_closed_gates_can_open(self) -> None:
        """A gate that starts at zero has a gradient there."""
        heads = self._heads()
        module = self._module(heads, fresh=True)
        value = self._value(module, heads)
        if value is not None and value.requires_grad:
            value.sum().backward()  # type: ignore[no-untyped-call]
            assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.gate.parameters())

    def test_causal(self) -> None:
        """No gate looks at another token: pooling over the sequence would leak the future."""
        heads = self._heads()
        module = self._module(heads)
        before = self._value(module, heads)
        for tensor in (heads.query, heads.hidden, heads.unrotated):
            tensor.data[:, :, -1] += 1.0
        for tensor in (heads.key, heads.value):
            tensor.data[:, :, -1] += 1.0
        after = self._value(module, heads)
        if before is not None and after is not None and before.shape[2] > 1:
            assert torch.allclose(before[:, :, :-1], after[:, :, :-1], rtol=1e-12, atol=1e-12)
