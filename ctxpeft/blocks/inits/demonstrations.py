"""A matrix compiled from demonstrations, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ctxpeft.blocks.query import naive_query
from ctxpeft.blocks.states import TextStates
from ctxpeft.spec.base import Domain, Later
from ctxpeft.spec.blocks import InitSpec, Place

if TYPE_CHECKING:
    from ctxpeft.blocks.context_module import ContextModule

TINY = 1e-6


class Demonstrations(InitSpec):
    """A matrix that begins as what the demonstrations in `text` would do in context.

    sum: M = sum_j phi(k_j) v_j^T and, with a mass, z = sum_j phi(k_j), over the tokens of the text; keys go through the
    query's own norm and scale. Exact for a host of linear attention with this phi; inside a softmax as good as phi
    approximates its exponential.
    delta: the tokens write one after another, M <- M + rate phi(k_j) (v_j - M^T phi(k_j))^T / |phi(k_j)|^2, so that
    what is written last is recalled best. Outside without a normaliser only.
    ridge: M minimises sum_i |M^T phi(q_i) - rho_i (r_i - o_i)|^2 + ridge s |M|^2 over the queries of `probe` (by
    default the text itself): the change that the demonstrations in context would have made, s the mean square of
    phi(q). Outside with merge `add` only.
    """

    cites: ClassVar[str] = (
        "ICLCA, arXiv:2406.02847; kernelised prefix, arXiv:2506.13674, eq. 5; delta rule, arXiv:2102.11174"
    )
    equation: ClassVar[str] = "M = Σⱼ φ(kⱼ) vⱼᵀ, its delta rule, or ridge regression of ρ (r − o) on φ(q)"
    compiles: ClassVar[bool] = True
    kind: Literal["demonstrations"] = "demonstrations"
    text: Annotated[str, Field(min_length=1)]
    probe: Annotated[str, Field(min_length=1)] | None = None
    method: Literal["ridge", "sum", "delta"] = "ridge"
    ridge: Annotated[float, Field(gt=0), Domain(1e-4, 10.0, log=True)] = 1e-2
    rate: Annotated[float, Field(gt=0, le=1), Domain(0.05, 1.0), Later()] = 1.0

    def fill_(self, tensor: Tensor) -> None:
        """Zero until the host's states are there."""
        nn.init.zeros_(tensor)

    def texts(self) -> tuple[tuple[str, Place], ...]:
        before: tuple[str, Place] = (self.text, "before")
        return (before, (self.probe or self.text, "content")) if self.method == "ridge" else (before,)

    def compile(self, module: ContextModule, states: list[TextStates]) -> None:
        """Raises HostError where a memory cannot hold the result."""
        with torch.no_grad():
            if self.method == "ridge":
                self._ridge(module, states[0], states[-1])
            else:
                write = self._sum if self.method == "sum" else self._delta
                write(module, states[0])

    def _sum(self, module: ContextModule, demonstrations: TextStates) -> None:
        feature, value = features_of_keys(module, demonstrations), value_of_heads(module, demonstrations)
        memory: Any = module.memory
        matrix = torch.einsum("hsw,hsv->hwv", feature, value)
        memory.matrix.copy_(mean_of_groups(module, matrix))
        if memory.zeta is not None:
            mass = mean_of_groups(module, feature.sum(1)).clamp_min(TINY)
            memory.zeta.copy_(mass + torch.log(-torch.expm1(-mass)))

    def _delta(self, module: ContextModule, demonstrations: TextStates) -> None:
        feature, value = features_of_keys(module, demonstrations), value_of_heads(module, demonstrations)
        step = self.rate * feature / feature.square().sum(-1, keepdim=True).clamp_min(TINY)
        matrix = feature.new_zeros(len(feature), feature.shape[2], value.shape[2])
        for j in range(feature.shape[1]):
            missing = value[:, j] - torch.einsum("hw,hwv->hv", feature[:, j], matrix)
            matrix += torch.einsum("hw,hv->hwv", step[:, j], missing)
        memory: Any = module.memory
        memory.matrix.copy_(mean_of_groups(module, matrix))

    def _ridge(self, module: ContextModule, demonstrations: TextStates, probe: TextStates) -> None:
        feature = features_of_queries(module, probe).double()
        target = change_in_context(module, demonstrations, probe).double()
        solutions = []
        for g in range(module.grouping.groups):
            heads = [h for h, group in enumerate(module.grouping.group_of_head) if group == g]
            X, Y = feature[heads].flatten(0, 1), target[heads].flatten(0, 1)
            strength = self.ridge * float(X.square().mean().clamp_min(TINY)) * len(X)
            gram = X.T @ X + strength * torch.eye(X.shape[1], dtype=X.dtype, device=X.device)
            solutions.append(torch.linalg.solve(gram, X.T @ Y))
        memory: Any = module.memory
        memory.matrix.copy_(torch.stack(solutions))


def features_of_keys(module: ContextModule, states: TextStates) -> Tensor:
    """phi of the text's keys for every query head in scope: (H, S, w)."""
    source = states.rotated_key if module.spec.query.source == "rotated" else states.key()
    key = naive_query(module.spec.query, _of_heads(module, source), module.spec.query.temperature)
    return _mapped(module, key.to(module.dtype)[None])


def features_of_queries(module: ContextModule, states: TextStates) -> Tensor:
    """phi of the text's queries for every query head in scope: (H, S, w)."""
    return _mapped(module, module.query(states.capture))


def value_of_heads(module: ContextModule, states: TextStates) -> Tensor:
    """The text's values as every query head in scope sees them: (H, S, dv)."""
    return _of_heads(module, states.value).to(module.dtype)


def change_in_context(module: ContextModule, demonstrations: TextStates, probe: TextStates) -> Tensor:
    """rho (r - o) at every query of the probe: what the demonstrations before it would change. (H, S, dv)

    r and l are the softmax read of the demonstrations' keys and values and its log-mass, o and L the content's.
    """
    capture = probe.capture
    assert capture.log_mass is not None
    assert capture.rotated is not None
    heads = module.heads
    query, output = capture.rotated[0].to(module.dtype), capture.output[0].to(module.dtype)
    mass = capture.log_mass()[0].to(module.dtype)
    if heads is not None:
        query, output, mass = (t.index_select(0, heads) for t in (query, output, mass))
    key = _of_heads(module, demonstrations.rotated_key).to(module.dtype)
    score = query @ key.transpose(1, 2) * module.scaling
    if module.softcap is not None:
        score = torch.tanh(score / module.softcap) * module.softcap
    rho = torch.sigmoid(torch.logsumexp(score, -1) - mass)[..., None]
    return rho * (torch.softmax(score, -1) @ value_of_heads(module, demonstrations) - output)


def mean_of_groups(module: ContextModule, per_head: Tensor) -> Tensor:
    """(H, ...) -> (G, ...): the mean over the heads that share a set of parameters."""
    groups = torch.tensor(module.grouping.group_of_head, device=per_head.device)
    total = per_head.new_zeros(module.grouping.groups, *per_head.shape[1:]).index_add(0, groups, per_head)
    return total / (len(groups) // module.grouping.groups)


def _of_heads(module: ContextModule, per_kv_head: Tensor) -> Tensor:
    return per_kv_head[module.kv_head_of_head]


def _mapped(module: ContextModule, x: Tensor) -> Tensor:
    """(1, H, S, d) -> (H, S, w) by the module's feature map."""
    assert module.feature_map is not None
    mapped = module.feature_map(module.phi_grouping.fold(x))
    return module.phi_grouping.unfold(mapped, x.shape[2])[0]
