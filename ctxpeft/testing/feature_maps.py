"""What every feature map must satisfy. A third party subclasses it with its own specs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.spec.blocks import FeatureMapSpec, SiteShape
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.testing.compare import assert_same_with_gradients


class FeatureMapConformance:
    """Subclass it, set `spec`, and pytest runs the laws on it.

    class TestMyMap(FeatureMapConformance):
        spec = MyMap(width=5)
    """

    spec: FeatureMapSpec
    width = 6
    groups = 3

    def _module(self, seed: int = 0, std: float = 0.1) -> nn.Module:
        """The module in float64, every parameter moved away from its init."""
        torch.manual_seed(seed)
        module = self.spec.build(self.width, self.groups).double()
        for parameter in module.parameters():
            parameter.data.add_(std * torch.randn_like(parameter))
        return module

    def _input(self, batch: int = 2, count: int = 4) -> Tensor:
        torch.manual_seed(1)
        return torch.randn(batch, self.groups, count, self.width, dtype=torch.float64, requires_grad=True)

    def _naive(self, module: nn.Module, x: Tensor) -> Tensor:
        """The equation, group by group and row by row of the batch."""
        groups = [of_group(module, g) for g in range(self.groups)]
        rows = [torch.stack([self.spec.naive(row[g], groups[g]) for g in range(self.groups)]) for row in x]
        return torch.stack(rows)

    def test_width_is_declared(self) -> None:
        """phi(x) has the width that the spec declares."""
        assert self._module()(self._input()).shape == (2, self.groups, 4, self.spec.out_width(self.width))

    def test_equals_its_equation(self) -> None:
        """The module equals the naive equation, values and every gradient, group by group."""
        module, x = self._module(), self._input()
        inputs = {"x": x, **dict(module.named_parameters())}
        assert_same_with_gradients(module(x), self._naive(module, x), inputs)

    def test_sign_is_declared(self) -> None:
        """A map that calls itself positive is never negative, whatever was learned; a signed one is somewhere."""
        x = 3 * torch.randn(4, self.groups, 256, self.width, dtype=torch.float64)
        lowest = float(self._module(std=3.0)(x).detach().min())
        assert lowest >= 0 if self.spec.is_positive() else lowest < 0
        assert self.spec.is_positive() or self.spec.sign != "positive"

    def test_positive_kernels_are(self) -> None:
        """A map that says its kernel is positive has phi(x)^T phi(y) >= 0 for all x and y, whatever was learned."""
        if self.spec.has_positive_kernel():
            x = 3 * torch.randn(2, self.groups, 256, self.width, dtype=torch.float64)
            one, other = functional.normalize(self._module(std=3.0)(x).detach(), dim=-1)
            assert float((one @ other.transpose(1, 2)).min()) >= -1e-12

    def test_learned_is_declared(self) -> None:
        """A map has parameters exactly if it says so, and only kinds that say so have any."""
        assert bool(list(self._module().parameters())) == self.spec.has_parameters()
        assert self.spec.learned or not self.spec.has_parameters()

    def test_random_is_declared(self) -> None:
        """A map without parameters has saved buffers exactly if it says it is random; the others have none."""
        buffers = set(self._module().state_dict()) - dict(self._module().named_parameters()).keys()
        assert self.spec.has_parameters() or bool(buffers) == self.spec.random
        assert not self.spec.random or buffers

    def test_bounded_is_declared(self) -> None:
        """No entry of a map that calls itself bounded exceeds 2 in size, however large the input."""
        if self.spec.bounded:
            module, x = self._module(), self._input()
            assert float(module(1e6 * x).detach().abs().max()) <= 2

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

    def test_every_parameter_gets_a_gradient(self) -> None:
        """From its init on, every parameter moves phi."""
        torch.manual_seed(0)
        module = self.spec.build(self.width, self.groups).double()
        phi = module(self._input())
        if self.spec.has_parameters():
            (phi * torch.randn_like(phi)).sum().backward()
        assert all(p.grad is not None and bool((p.grad != 0).any()) for p in module.parameters())

    def test_forward_changes_nothing(self) -> None:
        """Training or not, forward reads parameters and buffers, writes none, and draws nothing."""
        module, x = self._module().train(), self._input()
        before, random_state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
        once, again = module(x), module(x)
        assert torch.equal(once, again)
        assert torch.equal(torch.get_rng_state(), random_state)
        assert all(torch.equal(t, before[key]) for key, t in module.state_dict().items())

    def test_the_state_is_the_map(self) -> None:
        """A module drawn from another seed is the same map once it has the state of the first."""
        module, other, x = self._module(seed=0), self._module(seed=1), self._input()
        other.load_state_dict(module.state_dict())
        assert torch.equal(module(x), other(x))

    def test_a_seed_draws_one_map(self) -> None:
        """Building draws from torch's global random state alone: one seed, one map."""
        one, same = self._module(seed=7).state_dict(), self._module(seed=7).state_dict()
        assert all(torch.equal(t, same[key]) for key, t in one.items())

    def test_one_map_serves_any_number_of_groups(self) -> None:
        """Built for one group, it answers for all groups as for each of them."""
        torch.manual_seed(0)
        module, x = self.spec.build(self.width, 1).double(), self._input()
        apart = torch.cat([module(x[:, g : g + 1]) for g in range(self.groups)], 1)
        assert torch.allclose(module(x), apart, rtol=1e-12, atol=1e-12)

    def test_the_meta_device_gives_shapes(self) -> None:
        """Counting builds on the meta device: the same names and shapes, and no number."""
        with torch.device("meta"):
            empty = self.spec.build(self.width, self.groups).state_dict()
        real = self._module().state_dict()
        assert {k: t.shape for k, t in empty.items()} == {k: t.shape for k, t in real.items()}
        assert all(t.is_meta for t in empty.values())

    def test_a_bf16_host_is_read_in_fp32(self) -> None:
        """On a bfloat16 host the map runs in fp32, its buffers stay fp32 through casts, and the read is finite."""
        torch.manual_seed(0)
        module = ContextModule(
            ModuleSpec.model_validate(
                {
                    "placement": "outside",
                    "feature_map": self.spec,
                    "memory": {"kind": "matrix", "init": {"kind": "normal", "std": 1.0}},
                }
            ),
            _bf16_host(heads=self.groups, width=self.width),
        ).to(torch.bfloat16)
        query = 4 * torch.randn(2, self.groups, 5, self.width, dtype=torch.bfloat16)
        read, _ = module.read(Capture(output=torch.zeros_like(query), rotated=query))
        assert read.n.dtype == torch.float32
        assert bool(torch.isfinite(read.n).all())
        assert bool((read.n != 0).any())
        assert all(t.dtype == torch.float32 for t in module.state_dict().values())


def of_group(module: nn.Module, group: int) -> dict[str, Tensor]:
    """What `FeatureMapSpec.naive` is given: the parameters and saved buffers of one group.

    A tensor with a leading dimension of 1 belongs to every group.
    """
    return {key: t[group % len(t)] for key, t in module.state_dict(keep_vars=True).items()}


def _bf16_host(heads: int, width: int) -> SiteShape:
    return SiteShape(
        query_heads=heads,
        kv_heads=heads,
        heads=tuple(range(heads)),
        source_width=width,
        value_width=width,
        hidden_width=heads * width,
        scaling=width**-0.5,
        softcap=None,
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
    )
