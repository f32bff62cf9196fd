"""What every feature map must satisfy. A third party subclasses it with its own specs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctxpeft.spec.blocks import FeatureMapSpec
from ctxpeft.testing.compare import assert_same_with_gradients


class FeatureMapConformance:
    """Subclass it, set `spec`, and pytest runs the laws on it.

    class TestMyMap(FeatureMapConformance):
        spec = MyMap(width=5)
    """

    spec: FeatureMapSpec
    width = 6
    groups = 3

    def _module(self) -> nn.Module:
        torch.manual_seed(0)
        module = self.spec.build(self.width, self.groups).double()
        for parameter in module.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        return module

    def _input(self, batch: int = 2, count: int = 4) -> Tensor:
        torch.manual_seed(1)
        return torch.randn(batch, self.groups, count, self.width, dtype=torch.float64, requires_grad=True)

    def test_width_is_declared(self) -> None:
        """phi(x) has the width that the spec declares."""
        assert self._module()(self._input()).shape == (2, self.groups, 4, self.spec.out_width(self.width))

    def test_equals_its_equation(self) -> None:
        """The module equals the naive equation, values and every gradient, group by group."""
        module, x = self._module(), self._input()
        parameters = dict(module.named_parameters())
        naive = torch.stack(
            [
                torch.stack(
                    [
                        self.spec.naive(x[b, g], {k: p[g] for k, p in parameters.items()})
                        for g in range(self.groups)
                    ]
                )
                for b in range(x.shape[0])
            ]
        )
        assert_same_with_gradients(module(x), naive, {"x": x, **parameters})

    def test_sign_is_declared(self) -> None:
        """A map that calls itself positive is never negative; one that calls itself signed is negative somewhere."""
        x = 3 * torch.randn(4, self.groups, 256, self.width, dtype=torch.float64)
        lowest = float(self._module()(x).min())
        assert lowest >= 0 if self.spec.sign == "positive" else lowest < 0

    def test_learned_is_declared(self) -> None:
        """A map has parameters exactly if it says it is learned."""
        assert bool(list(self._module().parameters())) == self.spec.learned

    def test_bounded_is_declared(self) -> None:
        """A map that calls itself bounded does not grow with its input."""
        if self.spec.bounded:
            module, x = self._module(), self._input()
            assert float(module(1e6 * x).abs().max()) <= 1 + 1e-9

    def test_rows_do_not_look_at_each_other(self) -> None:
        """Changing one row changes that row of phi alone: no leak between tokens."""
        module, x = self._module(), self._input().detach()
        changed = x.clone()
        changed[:, :, -1] += 1.0
        assert torch.equal(module(x)[:, :, :-1], module(changed)[:, :, :-1])

    def test_single_precision_is_close(self) -> None:
        """fp32 agrees with fp64."""
        module, x = self._module(), self._input().detach()
        exact = module(x)
        assert torch.allclose(module.float()(x.float()).double(), exact, rtol=1e-4, atol=1e-5)
