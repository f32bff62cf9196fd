"""Two computations compared: values and every gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def assert_same_with_gradients(
    fast: Tensor, naive: Tensor, inputs: Mapping[str, Tensor], relative: float = 1e-10
) -> None:
    """The two results, and the gradient of a random weighting of them for every input, agree.

    `relative` is the largest error allowed, over the largest entry of the naive result (or gradient), float64.
    """
    assert fast.shape == naive.shape, f"shapes {tuple(fast.shape)} and {tuple(naive.shape)}"
    weights = torch.randn(fast.shape, dtype=fast.dtype, generator=torch.Generator().manual_seed(0))
    _close("value", fast.detach(), naive.detach(), relative)
    names = list(inputs)
    tensors = [inputs[name] for name in names]
    ours, theirs = _gradients(fast * weights, tensors), _gradients(naive * weights, tensors)
    for name, tensor, a, b in zip(names, tensors, ours, theirs, strict=True):
        zero = torch.zeros_like(tensor)
        _close(f"gradient of {name}", zero if a is None else a, zero if b is None else b, relative)


def _gradients(result: Tensor, tensors: list[Tensor]) -> Sequence[Tensor | None]:
    if not result.requires_grad:
        return [None] * len(tensors)
    return torch.autograd.grad(result.sum(), tensors, allow_unused=True, retain_graph=True)


def _close(what: str, fast: Tensor, naive: Tensor, relative: float) -> None:
    scale = max(float(naive.abs().max()), 1.0) if naive.numel() else 1.0
    error = float((fast - naive).abs().max()) if naive.numel() else 0.0
    assert error <= relative * scale, f"{what}: error {error:.3g} against a scale of {scale:.3g}"
