"""One module of a variant at one site of one layer: query, feature map, memory, gate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture, Read, compute_dtype
from ctxpeft.blocks.feature_maps.elementwise import Elementwise
from ctxpeft.blocks.grouping import Grouping
from ctxpeft.blocks.one_query import OneQuery
from ctxpeft.blocks.precision import FullPrecision
from ctxpeft.blocks.products import add_into, add_one, added_mapped, product, repeated
from ctxpeft.blocks.query import Query
from ctxpeft.spec.blocks import SiteShape
from ctxpeft.spec.module import ModuleSpec


class ContextModule(FullPrecision):
    """Reads a memory; merging is `ctxpeft.blocks.compose`. Parameters are fp32 (fp64 on an fp64 host).

    looks_at: what of a capture the query, the memory and the gate may look at.
    weighs: its gate acts on a softmax weight.
    joins: its slots can stand in a softmax kernel as they are: asked by q itself, without gates, by all heads in order.
    alone: it joins with slots that look at nothing of the text.
    massed: it competes by a matrix with a mass.
    weighed: it is massed, or competes like one that is alone, but by the length of the input.
    adds: all it does is to add what it answers, and it looks at nothing of the content's attention.
    bare: it asks q itself, without a gate.
    short: what it adds is g phi(q')^T M. one_product: that is one product a head, and it is bare.
    aside: it adds the read of slots as they are, gated by parameters alone.
    count: heads in scope. as_it_is: its query is the source.
    """

    heads: Tensor | None

    def __init__(self, spec: ModuleSpec, shape: SiteShape) -> None:
        super().__init__()
        self.spec, self.shape = spec, shape
        self.dtype = compute_dtype(shape.dtype)
        self.reads_log_mass = spec.placement == "inside" or getattr(spec.gate, "source", None) == "log_mass"
        self.looks_at = {str(spec.query.source), *spec.memory.looks_at(), *spec.gate.looks_at()}
        self.gated = spec.gate.kind != "none"
        self.weighs = spec.placement == "inside" and self.gated and spec.gate.on == "weight"
        self.kv_head_of_head = shape.kv_head_of_heads()
        self.scaling, self.softcap = shape.scaling, shape.softcap
        every = shape.heads == tuple(range(shape.query_heads))
        self.register_buffer(
            "heads", None if every else torch.tensor(shape.heads, device=shape.device), persistent=False
        )
        default = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with shape.device if shape.device.type == "meta" else torch.device("cpu"):
                self._build(spec, shape)
        finally:
            torch.set_default_dtype(default)
        self.to(shape.device)

    def _build(self, spec: ModuleSpec, shape: SiteShape) -> None:
        self.query = Query(spec.query, shape)
        self.gate = spec.gate.build(shape)
        self.memory = spec.memory.build(shape, spec.feature_map, spec.phi_per, spec.needs_mass())
        self.feature_map: nn.Module | None = None
        self.phi_grouping = self.grouping = Grouping(shape, getattr(spec.memory, "per", "layer"))
        if spec.feature_map is not None:
            shared = spec.phi_per if spec.feature_map.has_parameters() else "layer"
            self.phi_grouping = Grouping(shape, shared)
            self.feature_map = spec.feature_map.build(shape.source_width, shape.groups(shared))
        of_slots = (
            spec.gate.kind == "none"
            and getattr(self.memory, "plain", False)
            and self.query.plain
            and spec.query.source == "rotated"
            and self.grouping.order is None
        )
        own = of_slots and not spec.memory.looks_at()
        self.joins = spec.merge == "compete" and of_slots
        self.alone: bool = spec.merge == "compete" and own
        self.massed: bool = (
            spec.merge == "compete"
            and spec.gate.kind == "none"
            and getattr(self.memory, "massed", False)
            and spec.query.source == "rotated"
            and not spec.query.learned_temperature
            and self.heads is None
        )
        self.weighed: bool = self.massed or (spec.merge == "compete_length" and own)
        self.adds: bool = (
            spec.placement == "outside"
            and spec.merge == "add"
            and self.heads is None
            and self.looks_at.isdisjoint(("output", "log_mass"))
        )
        self.short: bool = (
            self.adds
            and spec.normalizer == "none"
            and getattr(self.memory, "short", False)
            and spec.query.source in ("rotated", "unrotated")
        )
        self.aside: bool = (
            spec.placement == "outside"
            and spec.merge == "add"
            and spec.normalizer == "softmax"
            and not spec.gate.looks_at()
            and not spec.memory.looks_at()
            and getattr(self.memory, "reads_plainly", False)
            and self.query.plain
            and spec.query.source in ("rotated", "unrotated")
            and self.heads is None
            and self.grouping.order is None
        )
        memory: Any = self.memory
        self.bare: bool = self.query.plain and not self.gated
        self.one_product: bool = self.short and self.bare and len(memory.factors()) == 1
        self.count = self.grouping.heads
        self.share = self.count // self.grouping.groups
        self.as_it_is: bool = self.query.plain
        self.rotated = spec.query.source == "rotated"
        if spec.merge == "compete_length":
            self.length_bias = nn.Parameter(torch.full((len(shape.heads), 1), spec.length_bias))

    def refer(self, name: str, part: nn.Module) -> None:
        """Use a part that somebody else owns: it is called here, and counted, saved and moved there."""
        del self._modules[name]
        self.__dict__[name] = part
        self.short = self.alone = self.one_product = self.aside = self.massed = self.weighed = False

    def read(self, capture: Capture) -> tuple[Read, Tensor | None]:
        """What calling the module returns."""
        found: tuple[Read, Tensor | None] = self(capture)
        return found

    def forward(self, capture: Capture) -> tuple[Read, Tensor | None]:
        """The memory's answer and the gate (None where there is none).

        Read shapes: n (B, H, T, dv), m and c (B, H, T), H the heads in scope. Gates on the mass are already in n, m.
        """
        query = self.query(capture)
        gate: Tensor | None = self.gate(capture, query) if self.gated else None
        if self.spec.memory.kind == "none":
            return Read(query), gate
        tokens = query.shape[2]
        n, m, c = self.ask(query, capture)
        if not self.grouping.trivial:
            n = self.grouping.unfold(n, tokens)
            m, c = (None if t is None else self.grouping.unfold(t[..., None], tokens)[..., 0] for t in (m, c))
        if c is None:
            return Read(n), gate
        if self.spec.normalizer in ("sum", "softmax"):
            return Read(n if m is None else _divided(n, m)), gate
        if self.spec.merge == "compete_length":
            assert capture.key_count is not None
            assert c is not None
            count = capture.key_count().to(self.dtype)
            c = c + torch.log(count.clamp_min(1)) + self.length_bias
        if gate is not None and self.spec.gate.on == "mass":
            n, m, gate = n * gate, gate[..., 0] if m is None else m * gate[..., 0], None
        return Read(n, m, c), gate

    def add_to(
        self, output: Tensor, query: Tensor, into: bool = False, hidden: Tensor | None = None
    ) -> Tensor:
        """o + g phi(q')^T M of a module that is `short`, in fp32 or wider: (B, T, H, dv), as o; q is (B, H, T, d), the
        hidden state (B, T, D). With `into` o itself may be written to. What is trained must be `one_product`."""
        parts: Any = self._modules
        dtype, share, there = self.dtype, self.share, parts["feature_map"]
        phi = there.function if type(there) is Elementwise else there.forward
        if into and self.one_product and query.dtype is dtype is output.dtype and output.is_contiguous():
            matrix = parts["memory"]._parameters["matrix"]
            if query.shape[2] == 1 and matrix.shape[0] * share == query.shape[0] * query.shape[1]:
                return add_one(output, phi(query), matrix, share)
        q = query if query.dtype == dtype else query.to(dtype)
        o = output if output.dtype == dtype else output.to(dtype)
        factors = parts["memory"].factors()
        if not self.bare:
            q, gate = self._asked(q, output, hidden)
            if gate is not None:
                return torch.addcmul(o, gate, product(phi(q), factors, share, o))
        if into and o.is_contiguous():
            return add_into(o, phi(q), factors, share)
        if len(factors) == 1:
            return added_mapped(o, q, repeated(factors[0], share), phi)
        return o + product(phi(q), factors, share, o)

    def _asked(self, q: Tensor, output: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """q' (B, H, T, d), of rows side by side (1, B H, T, d), and the gate by token, (B, T, H, 1 or dv), None where
        there is none."""
        parts: Any = self._modules
        batch, heads, tokens, _ = q.shape
        if heads != self.count:
            q = q.reshape(1, self.count, tokens, -1)
        if not self.as_it_is:
            q = parts["query"].of(q)
        if not self.gated:
            return q, None
        there = None if hidden is None else Capture(output=output, hidden=hidden[:, None])
        return q, self._by_token(parts["gate"](there, q), batch, heads)

    def add_read(
        self, output: Tensor, query: Tensor, pairs: tuple[Tensor, Tensor], into: bool = False
    ) -> Tensor:
        """o + g softmax(scaling q K^T) V of a module that is `aside`, as `add_to`; K (G, P, d) and V (G, P, dv) are its
        `pairs`. Nothing is trained."""
        parts: Any = self._modules
        batch, heads, tokens, _ = query.shape
        dtype, grouping = self.dtype, parts["grouping"]
        q, gate = self._asked(query if query.dtype == dtype else query.to(dtype), output, None)
        read = parts["memory"].softmax_read(grouping.fold(q), *pairs)
        read = self._by_token(grouping.unfold(read, tokens), batch, heads)
        o = output if output.dtype == dtype else output.to(dtype)
        if gate is None:
            return o.add_(read) if into else o + read
        return o.addcmul_(gate, read) if into else torch.addcmul(o, gate, read)

    def beside_mass(self, asked: OneQuery) -> Tensor:
        """(B, 1, Hq, dv) of one softmax over the content and a module that is `massed`, of one query a row."""
        parts: Any = self._modules
        q = asked.q if asked.q.dtype == self.dtype else asked.q.to(self.dtype)
        if not self.as_it_is:
            q = parts["query"].of(q)
        matrix, z = parts["memory"].with_mass()
        return asked.beside_mass(parts["feature_map"].forward(q), matrix, z, self.share)

    def add(self, output: Tensor, capture: Capture) -> Tensor:
        """o + g r of a module that `adds`, (B, T, H, dv) as o; the capture may have all rows side by side, as one."""
        (read, _, _), gate = self.read(capture)
        batch, _, heads, _ = output.shape
        o, read = output.to(self.dtype), self._by_token(read, batch, heads)
        return o + read if gate is None else torch.addcmul(o, self._by_token(gate, batch, heads), read)

    def _by_token(self, t: Tensor, batch: int, heads: int) -> Tensor:
        """(B, H, T, v), or that of all rows side by side, (1, B H, T, v), -> (B, T, H, v); an axis along which all is
        the same may stay one."""
        if heads != self.count:
            t = t.expand(1, self.count, -1, -1).reshape(batch, heads, *t.shape[2:])
        return t.transpose(1, 2)

    def pairs(self, capture: Capture) -> tuple[Tensor, Tensor]:
        """K (G, P, d) and V (G, P, dv) of slots that `joins`."""
        memory: Any = self.memory
        found: tuple[Tensor, Tensor] = memory.pairs(capture)
        return found

    def ask(self, query: Tensor, capture: Capture) -> Read:
        """The memory's answer to q', folded."""
        phi: Any = self.feature_map
        if phi is None:
            answer: Read = self.memory(self.grouping.fold(query), None, capture)
        elif getattr(self.memory, "maps", False):
            answer = self.memory(query, phi.__call__, capture)
        else:
            x = self.phi_grouping.unfold(phi(self.phi_grouping.fold(query)), query.shape[2])
            # the function, not the module: accelerate moves arguments that have `.to`
            answer = self.memory(self.grouping.fold(x), phi.__call__, capture)
        return answer

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over (a reparameterisation is folded into what it produces)."""
        mine: int = sum(p.numel() for p in self.parameters())
        owned: Any = self._modules.get("memory")
        if owned is None or not hasattr(owned, "deployed_parameters"):
            return mine
        reparameterised: int = sum(p.numel() for p in owned.parameters())
        return mine - reparameterised + int(owned.deployed_parameters())


def _divided(n: Tensor, m: Tensor) -> Tensor:
    """n (B, H, T, dv) over m (B, H, T), and 0 where there is no mass.

    A positive map may be zero at a query (relu, dpfp). Such a query has no features and reads nothing, as it weighs
    nothing inside; values and gradients are finite there.
    """
    empty = m < torch.finfo(m.dtype).tiny
    return (n / m.masked_fill(empty, 1.0)[..., None]).masked_fill(empty[..., None], 0.0)
