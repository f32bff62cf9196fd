"""Modules of one structure, a row of the batch each, read as one module.

A row with a module of its own has parameter sets of its own. To the blocks, B rows of H heads and G sets of parameters
are one row of B H heads and B G sets: the tensors of a capture are viewed so, the parameters are laid side by side, and
nothing else is new. For reading alone: the copies get no gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from ctxpeft.blocks.attention import Question
from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.spec.blocks import Per, SiteShape


@dataclass(frozen=True)
class RowsShape(SiteShape):
    """The shape of a site with the heads of `rows` rows side by side; `one` is that of a single row."""

    rows: int = 1
    one: SiteShape | None = None

    @classmethod
    def of(cls, one: SiteShape, rows: int) -> RowsShape:
        """The shape of `rows` rows, on the meta device."""
        known = {field.name: getattr(one, field.name) for field in fields(SiteShape)}
        known["query_heads"], known["kv_heads"] = rows * one.query_heads, rows * one.kv_heads
        known["heads"], known["device"] = tuple(range(rows * one.query_heads)), torch.device("meta")
        return cls(**known, rows=rows, one=one)

    def kv_head_of_heads(self) -> list[int]:
        assert self.one is not None
        return self._by_row(self.one.kv_head_of_heads(), self.one.kv_heads)

    def group_of_heads(self, per: Per) -> list[int]:
        assert self.one is not None
        return self._by_row(self.one.group_of_heads(per), self.one.groups(per))

    def _by_row(self, numbers: list[int], count: int) -> list[int]:
        return [row * count + number for row in range(self.rows) for number in numbers]


def structure(module: ContextModule) -> Hashable | None:
    """What modules have in common that may be rows of one; None where a row's answer is not its own. Found once."""
    there = module.__dict__
    if "structure" not in there:
        alike = (module.spec.model_dump_json(), module.shape)
        there["structure"] = alike if _apart(module) else None
    found: Hashable | None = there["structure"]
    return found


def side_by_side(modules: Sequence[ContextModule]) -> ContextModule | None:
    """One module that answers to the row of each of these, of one structure, what that one answers; None where their
    tensors cannot be laid out so."""
    first = modules[0]
    spec, shape = first.spec, RowsShape.of(first.shape, len(modules))
    if getattr(spec.gate, "per", None) == "layer":
        spec = spec.model_copy(update={"gate": spec.gate.model_copy(update={"per": "head"})})
    made = ContextModule(spec, shape)
    states = [_state(m) for m in modules]
    if any(state.keys() != states[0].keys() for state in states):
        return None
    wanted = _state(made)
    if wanted.keys() != states[0].keys():
        return None
    for name, there in wanted.items():
        laid = _laid([state[name] for state in states], there.shape)
        if laid is None:
            return None
        _put(made, name, laid)
    for name, buffer in made.named_buffers():
        if buffer.is_meta:
            _put(made, name, first.get_buffer(name))
    return made.eval()


def one_row(capture: Capture) -> Capture:
    """(B, H, ...) -> (1, B H, ...) for all that such a module looks at."""
    batch, heads, tokens = capture.output.shape[:3]

    def laid(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.reshape(1, batch * t.shape[1], *t.shape[2:])

    def later(ask: Callable[[], Tensor] | None) -> Callable[[], Tensor] | None:
        return None if ask is None else lambda: laid(ask().expand(batch, heads, tokens))  # type: ignore[return-value]

    output = laid(capture.output)
    assert output is not None
    return replace(
        capture,
        output=output,
        hidden=laid(capture.hidden),
        rotated=laid(capture.rotated),
        unrotated=laid(capture.unrotated),
        log_mass=later(capture.log_mass),
        key_count=later(capture.key_count),
        project_kv=None,
        projections=None,
        positions=None,
        prompt_kv=None,
    )


def one_row_asked(asked: Question) -> Question:
    """What is asked of the contents of all rows, as of one row's: each head sees its own keys."""
    batch, heads = asked.q.shape[:2]

    def laid(t: Tensor) -> Tensor:
        return t.reshape(1, batch * t.shape[1], *t.shape[2:])

    def every(t: Tensor | None) -> Tensor | None:
        return None if t is None else laid(t.expand(batch, heads, *t.shape[2:]))

    q, k, v = laid(asked.q), laid(asked.k), laid(asked.v)
    return asked._replace(q=q, k=k, v=v, mask=every(asked.mask), blind=every(asked.blind))


def _state(module: nn.Module, path: str = "") -> dict[str, Tensor]:
    """What its `state_dict` would have, as it is."""
    passing = module._non_persistent_buffers_set
    found: dict[str, Tensor] = {path + name: t for name, t in module._parameters.items() if t is not None}
    found |= {path + n: t for n, t in module._buffers.items() if t is not None and n not in passing}
    for name, part in module._modules.items():
        if part is not None:
            found |= _state(part, f"{path}{name}.")
    return found


def _apart(module: ContextModule) -> bool:
    """Whether a module's answer to a head depends on that head and its own parameters alone."""
    shape, spec = module.shape, module.spec
    virtual = getattr(getattr(spec.memory, "parameterization", None), "virtual_tokens", False)
    every = shape.heads == tuple(range(shape.query_heads)) and spec.scope.tokens == "all"
    return every and not virtual and (shape.query_heads == 1 or "hidden" not in module.looks_at)


def _laid(parts: Sequence[Tensor], wanted: torch.Size) -> Tensor | None:
    """The sets of all rows one behind another; one set for all heads of a row is repeated where each has its own."""
    first, rows = parts[0], len(parts)
    if first.ndim == 0 or first.ndim != len(wanted) or first.shape[1:] != wanted[1:]:
        return None
    if any(part.shape != first.shape for part in parts):
        return None
    whole = torch.cat([part.detach() for part in parts])
    if whole.shape == wanted:
        return whole
    if first.shape[0] == 1 and wanted[0] % rows == 0:
        return whole.repeat_interleave(wanted[0] // rows, 0)
    return None


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    """A tensor of a module replaced, whatever device the old one claims."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value
