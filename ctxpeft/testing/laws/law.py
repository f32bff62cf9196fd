"""What a law is, and the registry of all laws.

A law is one function: its name is the id, its docstring the statement, its decorator says the equation and the source.
Each has a file of its own, or shares one with its mirror image. Laws of installed packages come in through the
entry-point group `ctxpeft.laws` (each entry names a module that defines laws).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ctxpeft.errors import SpecError, did_you_mean
from ctxpeft.spec.variant import Variant
from ctxpeft.testing.laws.size import LEAST, MOST, Size

if TYPE_CHECKING:
    from ctxpeft.testing.heads import Mask

Ground = Literal["algebra", "spec", "host"]
GROUP = "ctxpeft.laws"
_REGISTRY: dict[str, Law] = {}


@dataclass(frozen=True)
class Interval:
    """A choice of a law: any number from `low` to `high`."""

    low: float
    high: float


Choice = Interval | Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Law:
    """Something that always holds: `id`, one line of `statement`, its `equation`, its `source` (paper, equation).

    `holds` raises LawError (or AssertionError) where it does not. `ground` says what the law is about.
    """

    ground: ClassVar[Ground]
    id: str
    statement: str
    equation: str
    source: str
    holds: Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class AlgebraLaw(Law):
    """About the equations: `holds(heads, **choices)` on random attention heads in float64, no model.

    masks: the masks it is stated for; sinks: whether it is stated with attention sinks and a softcap too; past:
    whether there may be more keys than queries, as in cached decoding. examples: how many problems are enough, for a
    law that is statistical and costly.
    """

    ground: ClassVar[Ground] = "algebra"
    masks: Sequence[Mask] = ()
    sinks: bool = False
    past: bool = False
    examples: int | None = None
    choices: Mapping[str, Choice] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SpecLaw(Law):
    """About variants as data: `holds(variant)`."""

    ground: ClassVar[Ground] = "spec"


def always(variant: Variant) -> str | None:
    """For laws that apply to every variant."""
    return None


@dataclass(frozen=True, kw_only=True)
class HostLaw(Law):
    """About a variant on a model: `holds(host, size)`, where `host` is a `ctxpeft.testing.laws.host.Host`.

    applies: the reason why a variant is not concerned, or None. peft: whether it is stated for HF PEFT tuners too.
    base: whether it can be asked of the bare model, to tell a variant that breaks it from a model that does.
    least and most: the smallest and the largest batch it is asked for.
    """

    ground: ClassVar[Ground] = "host"
    applies: Callable[[Variant], str | None] = always
    peft: bool = False
    base: bool = False
    least: Size = LEAST
    most: Size = MOST

    def reason_not(self, variant: Variant) -> str | None:
        """Why the law does not apply to a variant, as far as its spec tells; None if it does."""
        if variant.peft is not None and not self.peft:
            return "an HF PEFT tuner makes no such claim"
        return self.applies(variant)


def register(law: Law) -> None:
    """Add a law. Raises SpecError if another law has its id."""
    known = _REGISTRY.get(law.id)
    if known is not None and known.holds.__module__ != law.holds.__module__:
        raise SpecError(
            f"two laws are called '{law.id}': {known.holds.__module__} and {law.holds.__module__}; rename one"
        )
    _REGISTRY[law.id] = law


def algebra_law(
    *,
    equation: str,
    source: str,
    masks: Sequence[Mask] = (),
    sinks: bool = False,
    past: bool = False,
    examples: int | None = None,
    **choices: Choice,
) -> Callable[[Callable[..., None]], AlgebraLaw]:
    """Make a function of (heads, **choices) a law; see `AlgebraLaw`."""

    def make(holds: Callable[..., None]) -> AlgebraLaw:
        law = AlgebraLaw(
            **_named(holds),
            equation=equation,
            source=source,
            masks=masks,
            sinks=sinks,
            past=past,
            examples=examples,
            choices=choices,
        )
        register(law)
        return law

    return make


def spec_law(*, equation: str, source: str) -> Callable[[Callable[[Variant], None]], SpecLaw]:
    """Make a function of a variant a law; see `SpecLaw`."""

    def make(holds: Callable[[Variant], None]) -> SpecLaw:
        law = SpecLaw(**_named(holds), equation=equation, source=source)
        register(law)
        return law

    return make


def host_law(*, equation: str, source: str, **options: Any) -> Callable[[Callable[..., None]], HostLaw]:
    """Make a function of (host, size) a law; see `HostLaw` for the options."""

    def make(holds: Callable[..., None]) -> HostLaw:
        law = HostLaw(**_named(holds), equation=equation, source=source, **options)
        register(law)
        return law

    return make


def laws(ground: Ground | None = None) -> list[Law]:
    """All laws, or those of one ground, in the order of their ids."""
    _find()
    return [law for _, law in sorted(_REGISTRY.items()) if ground in (None, law.ground)]


def law(name: str) -> Law:
    """The law with an id. Raises SpecError, with the nearest id, if there is none."""
    _find()
    if name not in _REGISTRY:
        raise SpecError(f"no law is called '{name}'{did_you_mean(name, _REGISTRY)}")
    return _REGISTRY[name]


@cache
def _find() -> None:
    """Import every module that defines laws: ours, one a file, and those of installed packages."""
    from ctxpeft.testing.laws import algebra, host, spec

    for package in (algebra, spec, host):
        for name in _modules(package):
            importlib.import_module(name)
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:  # an import of somebody else's package may fail in any way
            raise SpecError(
                f"the laws '{entry.name}' ({entry.value}) cannot be imported: {type(error).__name__}: {error}"
            ) from error


def _modules(package: Any) -> Iterator[str]:
    return (f"{package.__name__}.{found.name}" for found in pkgutil.iter_modules(package.__path__))


def _named(holds: Callable[..., None]) -> dict[str, Any]:
    statement = (inspect.getdoc(holds) or "").splitlines()
    if not statement:
        raise SpecError(f"the law '{holds.__name__}' has no docstring: its first line is the statement")
    return {"id": holds.__name__.replace("_", "-"), "statement": statement[0], "holds": holds}
