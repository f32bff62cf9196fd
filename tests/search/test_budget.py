"""The budget: sizes are solved for it, anchors stand at their nearest size, what cannot meet it says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from ctxpeft.search.anchors import load_anchor
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
