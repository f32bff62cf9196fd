"""The budget: sizes are solved for it, anchors stand at their nearest size, what cannot meet it says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from ctxpeft.errors import SpecError
from ctxpeft.search.anchors import in_words, load_anchor
from ctxpeft.search.budget import Target, nearest
from ctxpeft.search.counting import Counter, target_of
from ctxpeft.search.design import sample
from ctxpeft.search.space.chooser import RandomChooser
from ctxpeft.search.space.walk import InfeasibleError
from ctxpeft.search.spacefile import load_space
from ctxpeft.shipped import shipped_names
from ctxpeft.spec.variant import Variant
from tests.search.conftest import space_of


@pytest.mark.parametrize("wanted", [0, 1, 49, 50, 51, 99, 1000])
@pytest.mark.parametrize("slope", [1, 7, -3])
def test_nearest_agrees_with_trying_everything(wanted: int, slope: int) -> None:
    def count(n: int) -> int:
        return 500 + slope * n

    best = min(range(1, 101), key=lambda n: (abs(count(n) - (500 + wanted)), n))
    assert nearest(count, 1, 100, 500 + wanted) == (best, count(best))


BUDGETED = [name for name in shipped_names("search") if load_space(name).file.budget is not None]


@pytest.mark.parametrize("name", BUDGETED)
def test_every_design_meets_the_budget_or_says_why(name: str, skeleton: nn.Module) -> None:
    space = load_space(name)
    counter = Counter(skeleton)
    target = target_of(space.file.budget, counter)
    assert target is not None
    met = 0
    refused: list[InfeasibleError] = []
    for seed in range(30):
        try:
            design = sample(space.positions, RandomChooser(seed), counter, target)
        except InfeasibleError as error:
            refused.append(error)
            continue
        assert counter(design.variant) == design.parameters
        assert abs(design.parameters - target.parameters) <= 0.03 * target.parameters
        met += 1
    assert {error.rule for error in refused} <= {"budget"}
    assert all(f"the budget is {target.parameters:,}" in error.reason for error in refused)
    assert met >= 15


def test_two_modules_share_the_budget(skeleton: nn.Module) -> None:
    slots = "{templates: {a: {placement: inside, memory: {kind: slots, count: solve}}}}"
    space = space_of(f"modules: [{slots}, {slots}]\nbudget: {{parameters: 36864}}")
    counter = Counter(skeleton)
    chooser = RandomChooser(1)
    design = sample(space.positions, chooser, counter, target_of(space.file.budget, counter))
    share = float(str(chooser.asked["share[2]"]))
    first = counter(Variant(name="first", modules=design.variant.modules[:1]))
    assert first == pytest.approx(share * 36_864, rel=0.05)


def test_without_a_budget_sizes_are_sampled(skeleton: nn.Module) -> None:
    space = space_of("modules: [{templates: {a: {placement: inside, memory: {kind: slots, count: solve}}}}]")
    chooser = RandomChooser(0)
    sample(space.positions, chooser, Counter(skeleton), None)
    assert list(chooser.asked) == ["a.memory.count"]


def test_one_size_is_solved_and_the_others_are_asked(skeleton: nn.Module) -> None:
    memory = "{kind: matrix, form: low_rank, rank: solve}"
    text = f"{{placement: outside, feature_map: {{kind: projection, width: solve}}, memory: {memory}}}"
    space = space_of(
        f"modules: [{{templates: {{a: {text}}}}}]\nbudget: {{parameters: 200000, tolerance: 0.95}}"
    )
    counter = Counter(skeleton)
    chooser = RandomChooser(3)
    sample(space.positions, chooser, counter, target_of(space.file.budget, counter))
    assert list(chooser.asked) == ["a.feature_map.width"]


def test_layers_can_be_the_size(skeleton: nn.Module) -> None:
    module = (
        "{placement: outside, feature_map: elu, memory: matrix, scope: {layers: {last: {solve: [1, 6]}}}}"
    )
    space = space_of(f"modules: [{{templates: {{a: {module}}}}}]\nbudget: {{parameters: 18432}}")
    counter = Counter(skeleton)
    design = sample(space.positions, RandomChooser(0), counter, target_of(space.file.budget, counter))
    assert design.variant.to_dict()["modules"][0]["scope"] == {"layers": {"last": 3}}


SOLVED = """
modules:
  - templates:
      a:
        placement: outside
        feature_map: elu
        memory: {kind: matrix, per: {solve: [query_head, kv_head, layer, model]}}
        scope: {layers: {solve: [all, {last: 3}, {every: 2}]}}
"""


@pytest.mark.parametrize(
    ("wanted", "per", "layers"),
    [
        (36_864, "query_head", "all"),
        (18_432, "query_head", {"last": 3}),
        (12_288, "kv_head", "all"),
        (6_144, "kv_head", {"last": 3}),
        (3_072, "layer", {"last": 3}),
        (1_024, "model", "all"),
    ],
)
def test_sharing_and_layers_are_set_for_the_budget(
    wanted: int, per: str, layers: object, skeleton: nn.Module
) -> None:
    """The first combination that meets it: what stands first in the list is what is wanted most."""
    space = space_of(SOLVED + f"budget: {{parameters: {wanted}}}")
    counter, chooser = Counter(skeleton), RandomChooser(0)
    design = sample(space.positions, chooser, counter, target_of(space.file.budget, counter))
    assert design.parameters == wanted
    module = design.variant.modules[0].model_dump()
    assert module["memory"]["per"] == per
    found = module["scope"]["layers"]
    assert found == layers or {k: v for k, v in found.items() if v} == layers
    assert chooser.asked == {}


def test_a_choice_for_the_budget_and_a_size_are_solved_together(skeleton: nn.Module) -> None:
    memory = "{kind: matrix, form: low_rank, rank: {solve: [1, 4]}, per: {solve: [layer, query_head]}}"
    text = f"modules: [{{templates: {{a: {{placement: outside, feature_map: elu, memory: {memory}}}}}}}]"
    counter = Counter(skeleton)
    found = []
    for wanted in (768, 9_216):
        space = space_of(f"{text}\nbudget: {{parameters: {wanted}}}")
        design = sample(space.positions, RandomChooser(0), counter, target_of(space.file.budget, counter))
        found.append((design.parameters, design.variant.modules[0].memory.model_dump()["per"]))
    assert found == [(768, "layer"), (9_216, "query_head")]
    space = space_of(f"{text}\nbudget: {{parameters: 500000}}")
    with pytest.raises(InfeasibleError, match=r"at its nearest size \(rank 4, per query_head\)"):
        sample(space.positions, RandomChooser(0), counter, target_of(space.file.budget, counter))


def test_without_a_budget_such_a_choice_is_asked(skeleton: nn.Module) -> None:
    chooser = RandomChooser(0)
    sample(space_of(SOLVED).positions, chooser, Counter(skeleton), None)
    assert set(chooser.asked) == {"a.memory.per", "a.scope.layers"}


@pytest.mark.parametrize(
    "pattern", ["{solve: [query_head]}", "{solve: []}", "{solve: [[query_head, layer], model, {low: 1}]}"]
)
def test_such_a_choice_holds_no_question(pattern: str) -> None:
    text = f"{{placement: outside, feature_map: elu, memory: {{kind: matrix, per: {pattern}}}}}"
    with pytest.raises(SpecError, match=r"memory.*per"):
        space_of(f"modules: [{{templates: {{a: {text}}}}}]")


@pytest.mark.parametrize(
    ("name", "parameters", "size"),
    [
        ("prefix-tuning-plus", 36_864, ""),
        ("prefix-tuning", 36_864, "count 48"),
        ("lora-qv", 38_400, "r 10"),
        ("llama-adapter", 36_900, "count 32"),
    ],
)
def test_anchors_stand_at_their_nearest_size(
    name: str, parameters: int, size: str, skeleton: nn.Module
) -> None:
    if name == "lora-qv":
        pytest.importorskip("peft")
    anchor = load_anchor(name, Path(), Counter(skeleton), Target(36_864, 0.03))
    assert (anchor.parameters, anchor.size) == (parameters, size)
    if name == "lora-qv":
        assert anchor.variant.peft is not None
        assert anchor.variant.peft.arguments()["lora_alpha"] == 20


def test_a_size_that_does_not_fit_is_more_than_any(skeleton: nn.Module) -> None:
    """The rank of an edit cannot exceed the width of what it edits, whatever the budget asks."""
    counter = Counter(skeleton)
    anchor = load_anchor("reft", Path(), counter, Target(36_864, 0.03))
    assert (anchor.size, anchor.parameters) == ("rank 16", 36_960)
    most = load_anchor("reft", Path(), counter, Target(10_000_000, 0.03))
    assert most.size == "rank 192"


def test_an_anchor_without_a_size_says_so(skeleton: nn.Module) -> None:
    count, target = Counter(skeleton), Target(30_720, 0.03)
    lines = [
        in_words(load_anchor(name, Path(), count, target)) for name in ("prefix-tuning-plus", "prefix-tuning")
    ]
    assert lines == [
        "anchor prefix-tuning-plus: 36,864 parameters; has no size to turn",
        "anchor prefix-tuning: 30,720 parameters; nearest size, count 40; 24,576 as published",
    ]
    assert in_words(load_anchor("prefix-tuning-plus", Path(), count, None)).endswith("36,864 parameters")
