"""Abstract specs of the block families: what a kind declares so that the algebra can check and build it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from ctxpeft.spec.base import BlockSpec
from ctxpeft.spec.registry import Kinds

if TYPE_CHECKING:
    import torch

    from ctxpeft.blocks.context_module import ContextModule
    from ctxpeft.blocks.states import TextStates

Place = Literal["before", "content"]

Per = Literal["query_head", "kv_head", "layer", "model"]
Normalizer = Literal["none", "sum", "softmax"]
Looked = Literal["hidden", "output", "log_mass"]
EVERYTHING: tuple[Looked, ...] = ("hidden", "output", "log_mass")
Sign = Literal["positive", "positive_kernel", "signed"]
Mass = Literal["always", "positive_map", "positive_kernel", "never"]


@dataclass(frozen=True)
class SiteShape:
    """What a block needs to know of the place it serves; read from the host's weights, per layer.

    query_heads, kv_heads: heads at the site (1 and 1 at the one-head sites); heads: the query heads in scope;
    source_width: width of the query source; value_width: width of what is merged; scaling: the factor on
    content scores; softcap: the host's cap on them, if it has one; hidden_width: width of the residual stream;
    turnable: whether the host rotates its keys, by angles that do not depend on the length of the input.
    """

    query_heads: int
    kv_heads: int
    heads: tuple[int, ...]
    source_width: int
    value_width: int
    hidden_width: int
    scaling: float
    softcap: float | None
    dtype: torch.dtype
    device: torch.device
    turnable: bool = False

    def groups(self, per: Per) -> int:
        """How many sets of parameters a layer's block has: one a query head, a kv head, a layer or for all layers."""
        return len(set(self.group_of_heads(per)))

    def kv_head_of_heads(self) -> list[int]:
        """The kv head of each query head in scope."""
        repeat = self.query_heads // self.kv_heads
        return [h // repeat for h in self.heads]

    def group_of_heads(self, per: Per) -> list[int]:
        """The parameter set of each query head in scope, numbered in order of first use."""
        raw = {
            "query_head": list(self.heads),
            "kv_head": self.kv_head_of_heads(),
            "layer": [0] * len(self.heads),
            "model": [0] * len(self.heads),
        }[per]
        order: dict[int, int] = {}
        return [order.setdefault(g, len(order)) for g in raw]


class FeatureMapSpec(BlockSpec):
    """phi: R^d -> R^w, of each token alone.

    sign: `positive` if no entry of phi is ever negative; such a map can be normalised and can compete inside.
    `positive_kernel` if entries may be negative and phi(x)^T phi(y) never is: under such a map kernel slots can, whose
    mass is a sum of kernels, and a free matrix cannot, whose normaliser weighs the features one by one.
    bounded: whether no entry exceeds 2 in size, whatever x is. learned: whether the kind has parameters. random:
    whether it has buffers that are drawn at build, and saved. The options of a kind can narrow sign and learned down;
    `is_positive`, `has_positive_kernel` and `has_parameters` speak of one spec.

    A map with parameters has one set a `phi_per`. A map without is the same for all heads of a layer, and for the
    queries and keys of kernel slots; a random one is drawn once a layer, or with phi_per `model` once for all layers.
    """

    family: ClassVar[str] = "feature_map"
    sign: ClassVar[Sign] = "signed"
    bounded: ClassVar[bool] = False
    learned: ClassVar[bool] = False
    random: ClassVar[bool] = False

    @abstractmethod
    def out_width(self, width: int) -> int:
        """Width of phi(x) for an input of the given width."""

    @abstractmethod
    def naive(self, x: torch.Tensor, params: dict[str, torch.Tensor]) -> torch.Tensor:
        """The equation, readable: (N, width) -> (N, out_width).

        params: the module's parameters and saved buffers of one group, by the names of its `state_dict`.
        """

    @abstractmethod
    def build(self, width: int, groups: int) -> torch.nn.Module:
        """Module mapping (..., G, N, width) to (..., G, N, out_width), G = `groups`; any G where `groups` is 1.

        Parameters and saved buffers lead with a dimension of `groups`. What is random is drawn here from torch's
        global state, in the default dtype, and never in forward; on the meta device nothing but shapes is needed.
        """

    def is_positive(self) -> bool:
        """Whether no entry of phi is ever negative."""
        return self.sign == "positive"

    def has_positive_kernel(self) -> bool:
        """Whether phi(x)^T phi(y) is never negative, both sides through the same map."""
        return self.sign == "positive_kernel" or self.is_positive()

    def gives(self, mass: Mass) -> bool:
        """Whether a memory with such a mass has one under this map."""
        return self.has_positive_kernel() if mass == "positive_kernel" else self.is_positive()

    def has_parameters(self) -> bool:
        """Whether there is anything to learn."""
        return self.learned

    def written(self, argument: str) -> str:
        """phi of an argument, as equations print it."""
        return f"{self.kind}({argument})"


class InitSpec(BlockSpec):
    """How a memory's parameters begin.

    A kind that `compiles` begins from what the frozen host computes for some texts, one that is `from_vocabulary` from
    the host's token embeddings; `fill_` only makes room for them.
    """

    family: ClassVar[str] = "init"
    compiles: ClassVar[bool] = False
    from_vocabulary: ClassVar[bool] = False

    def is_zero(self) -> bool:
        """Whether every entry starts at exactly zero."""
        return False

    @abstractmethod
    def fill_(self, tensor: torch.Tensor) -> None:
        """Fill a parameter in place."""

    def texts(self) -> tuple[tuple[str, Place], ...]:
        """The texts a kind that compiles asks the host for, each standing `before` the input or as the `content`."""
        return ()

    def compile(self, module: ContextModule, states: list[TextStates]) -> None:
        """Fill one layer's memory from the states of `texts()`, in their order."""


@dataclass(frozen=True)
class SlotShape:
    """What a parameterization needs to know of the slots it makes: P = `count` of them in each of G = `groups` sets at
    the place `site`, and how their keys and values begin."""

    site: SiteShape
    count: int
    groups: int
    key_init: InitSpec
    value_init: InitSpec

    def keys(self) -> tuple[int, int, int]:
        """(G, P, d)."""
        return self.groups, self.count, self.site.source_width

    def values(self) -> tuple[int, int, int]:
        """(G, P, dv)."""
        return self.groups, self.count, self.site.value_width

    def numbers(self) -> int:
        """How many numbers K and V are."""
        return self.groups * self.count * (self.site.source_width + self.site.value_width)


class ParameterizationSpec(BlockSpec):
    """How slot keys and values come from parameters.

    looks_at: what of the capture a kind may look at besides the host's projections and the virtual tokens.
    learning_rate: where slots made by the kind are usually tuned from, if not from where slots are.
    """

    family: ClassVar[str] = "parameterization"
    learning_rate: ClassVar[float | None] = None
    looks_at: ClassVar[tuple[Looked, ...]] = EVERYTHING
    per_kv_head_only: ClassVar[bool] = False
    head_site_only: ClassVar[bool] = False
    virtual_tokens: ClassVar[bool] = False

    def zero_values_at_init(self, value_init: InitSpec) -> bool:
        """Whether the slot values start at exactly zero: a zero value init reaches the values themselves."""
        return value_init.is_zero()

    @abstractmethod
    def build(self, wanted: SlotShape) -> torch.nn.Module:
        """Module whose call with a Capture returns K (G, P, d) and V (G, P, dv)."""

    def build_whole(self, shape: SiteShape, count: int, init: InitSpec) -> torch.nn.Module:
        """Module whose call returns the embeddings (P, D) of the virtual tokens, one for the whole model; for kinds
        with `virtual_tokens`. What `build` returns is then told of it by `refer`."""
        raise NotImplementedError


class MemorySpec(BlockSpec):
    """What is asked. Declares which feature map, normaliser and placement it can take.

    learning_rate: where the rate of the kind is usually tuned from (AdamW, no weight decay); inside, where it competes
    with the content, `learning_rate_inside` if there is one.
    """

    family: ClassVar[str] = "memory"
    learning_rate: ClassVar[float] = 1e-2
    learning_rate_inside: ClassVar[float | None] = None

    def usual_rate(self, placement: str) -> float:
        """The learning rate to begin with, for a module of nothing but this memory at a placement."""
        return (self.learning_rate_inside if placement == "inside" else None) or self.learning_rate

    @abstractmethod
    def feature_map_use(self) -> Literal["required", "forbidden"]:
        """Whether the read goes through phi."""

    @abstractmethod
    def mass(self) -> Mass:
        """When the read has a mass and can compete inside: always, only under a positive phi, only under a phi of
        positive kernel, or never."""

    @abstractmethod
    def normalizers(self) -> tuple[Normalizer, ...]:
        """Normalisers legal outside; the first is the default."""

    @abstractmethod
    def zero_read_at_init(self) -> bool:
        """Whether the read is exactly zero at init."""

    def looks_at(self) -> tuple[Looked, ...]:
        """What the read may depend on besides its query and its parameters; what nothing looks at is not made."""
        return EVERYTHING

    def written(self, query: str, phi: Callable[[str], str]) -> tuple[str, str]:
        """Numerator and mass as equations print them, for a query and a feature map so written; "" for no mass."""
        return f"{self.kind}({query})", f"mass({query})"

    def written_normalised(self, query: str) -> str:
        """The read divided by its mass, where it has a shorter form than the quotient."""
        return ""

    @abstractmethod
    def build(
        self, shape: SiteShape, feature_map: FeatureMapSpec | None, phi_per: Per, needs_mass: bool
    ) -> torch.nn.Module:
        """Module that reads the memory; see `ctxpeft.blocks.memory.base`."""


class PlainMemorySpec(MemorySpec):
    """A memory that is asked without a feature map and answers without a mass, so that nothing normalises it."""

    def feature_map_use(self) -> Literal["required", "forbidden"]:
        return "forbidden"

    def mass(self) -> Mass:
        return "never"

    def normalizers(self) -> tuple[Normalizer, ...]:
        return ("none",)


class GateSpec(BlockSpec):
    """g. Outside it multiplies as the merge says; inside it acts `on` the slot mass or the prefix weight rho."""

    family: ClassVar[str] = "gate"

    on: Literal["weight", "mass"] = "weight"

    def is_zero_at_init(self) -> bool:
        """Whether g is exactly zero at init."""
        return False

    def is_one_at_init(self) -> bool:
        """Whether g is exactly one at init."""
        return False

    def looks_at(self) -> tuple[Looked, ...]:
        """What g may depend on besides the module's query and its parameters; what nothing looks at is not made."""
        return EVERYTHING

    def is_positive(self) -> bool:
        """Whether g > 0 always, as a gate on the mass needs."""
        return False

    def written(self, query: str, output: str) -> tuple[str, str]:
        """How equations print the gate, for a query and an output so written: its symbol, and what it stands for."""
        return "g", self.kind

    def per_channel(self) -> bool:
        """Whether g has one value a channel; such a gate cannot act on a softmax weight."""
        return False

    @abstractmethod
    def build(self, shape: SiteShape) -> torch.nn.Module:
        """Module that maps a Capture to g, as (B or 1, H or 1, T or 1, 1 or dv); None is g = 1."""


FeatureMap = Annotated[FeatureMapSpec, Kinds("feature_map")]
Init = Annotated[InitSpec, Kinds("init")]
Parameterization = Annotated[ParameterizationSpec, Kinds("parameterization")]
Memory = Annotated[MemorySpec, Kinds("memory")]
Gate = Annotated[GateSpec, Kinds("gate")]
