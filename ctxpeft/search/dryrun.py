"""What a space holds, shown before anything is trained: the tree, its size, sampled designs with their counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ctxpeft.search.anchors import Anchor, in_words, load_anchor
from ctxpeft.search.budget import Target
from ctxpeft.search.counting import Counter, space_on, target_of
from ctxpeft.search.design import Design, sample
from ctxpeft.search.expected import Expected
from ctxpeft.search.impossible import counted, impossible
from ctxpeft.search.space.chooser import RandomChooser
from ctxpeft.search.space.tree import lines, size
from ctxpeft.search.space.walk import InfeasibleError
from ctxpeft.search.spacefile import Space
from ctxpeft.spec.guide import Facts

if TYPE_CHECKING:
    from torch import nn

PROBES = 100


@dataclass(frozen=True)
class Preview:
    """A look into a space. refused: why sampled designs could not be, and how often, of `probes`. over: one of those
    that cannot meet the budget. impossible: what to say where all of them were refused. expected: how long a search
    takes, where the data are known; facts: what the construction guide is told then.
    """

    tree: list[str]
    structures: int
    target: Target | None
    anchors: list[Anchor]
    designs: list[Design]
    refused: list[tuple[str, int]]
    probes: int
    over: str = ""
    impossible: str = ""
    expected: Expected | None = None
    facts: Facts | None = None

    def plain(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "tree": self.tree,
            "structures": self.structures,
            "budget": self.target.parameters if self.target else None,
            "anchors": [
                {"name": a.name, "parameters": a.parameters, "published": a.published, "size": a.size}
                for a in self.anchors
            ],
            "designs": [{"parameters": d.parameters, "variant": d.variant.to_dict()} for d in self.designs],
            "refused": dict(self.refused),
            "probes": self.probes,
            "expected": self.expected.plain() if self.expected else None,
            "facts": asdict(self.facts) if self.facts else None,
        }


def preview(
    space: Space, model: nn.Module, designs: int = 10, seed: int = 0, facts: Facts | None = None
) -> Preview:
    """Sample a space on a model, which may be on the meta device.

    facts: what the construction guide is told of model and data where the space wants it, nothing where left out.

    Raises SpecError where a template has no stack of the model.
    """
    space = space_on(space, model)
    guide = (facts or Facts()) if space.file.search.guide else None
    counter = Counter(model)
    target = target_of(space.file.budget, counter)
    anchors = [load_anchor(name, space.folder, counter, target) for name in space.file.anchors]
    found: list[Design] = []
    refused: list[tuple[str, str]] = []
    probes, over = 0, ""
    while probes < PROBES and (len(found) < designs or probes < designs * 3):
        try:
            chooser = RandomChooser(seed * PROBES + probes)
            design = sample(space.positions, chooser, counter, target, guide)
            if all(design.variant.fingerprint() != other.variant.fingerprint() for other in found):
                found.append(design)
        except InfeasibleError as error:
            refused.append((error.rule, error.reason))
            if error.rule == "budget":
                over = over or f"{error.equation}: {error.reason}"
        probes += 1
    tree = list(lines(space.positions))
    structures = size(space.positions)
    why = counted(refused)
    never = "" if found else impossible(space.name, refused)
    return Preview(tree, structures, target, anchors, found[:designs], why, probes, over, never, facts=facts)


def lines_of(preview: Preview) -> Iterator[str]:
    """The preview as text."""
    from ctxpeft.spec.equation import variant_equations

    yield from preview.tree
    yield ""
    yield f"{preview.structures:,} structures, sizes and numbers not counted"
    if preview.target is not None:
        yield f"budget: {preview.target.parameters:,} parameters, within {preview.target.tolerance:.1%}"
    for anchor in preview.anchors:
        yield in_words(anchor)
    yield ""
    for design in preview.designs:
        yield f"{design.variant.name}: {' + '.join(design.templates)}, {design.parameters:,} parameters"
        for equation in variant_equations(design.variant):
            yield f"    {equation}"
        yield f"    {flow(design.variant.to_dict()['modules'])}"
    for reason, count in preview.refused:
        yield f"refused {count} of {preview.probes}: {reason}"
    if preview.over:
        yield f"    the budget, for example: {preview.over}"
    yield ""
    if preview.facts is not None:
        yield f"known of model and data: {preview.facts.sentence()}"
    if preview.expected is None:
        yield "expected time: give --task T or --data FILE, and a few steps are timed on the model"
    else:
        yield from preview.expected.lines()


def flow(value: Any) -> str:
    """YAML flow style on one line."""
    import yaml

    return str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)).strip()
