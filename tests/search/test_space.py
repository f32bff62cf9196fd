"""The space yields valid variants, its dimensions exist only under their parents, and its errors name the place."""

from __future__ import annotations

import re
from typing import Any

import pytest
from torch import nn

from ctxpeft.errors import SpecError
from ctxpeft.search.counting import Counter
from ctxpeft.search.design import sample
from ctxpeft.search.space.chooser import RandomChooser
from ctxpeft.search.space.nodes import Label
from ctxpeft.search.space.tree import lines, size
from ctxpeft.search.space.walk import InfeasibleError, walk
from ctxpeft.search.spacefile import Space, load_space
from ctxpeft.shipped import shipped_names
from ctxpeft.spec.blocks import FeatureMapSpec
from ctxpeft.spec.guide import Facts, advice
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.spec.registry import kinds
from tests.search.conftest import space_of

ANY = "modules: [{templates: {anything: any}}, {optional: true, templates: {more: any}}]"
SAMPLES = 200


class Recorder(RandomChooser):
    """Remembers the alternatives of every question."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.alternatives: dict[str, Any] = {}

    def option(self, name: str, labels: Any) -> Label:
        assert len(labels) > 1, f"{name} is no question"
        self.alternatives[name] = tuple(labels)
        return super().option(name, labels)

    def number(self, name: str, span: Any) -> float:
        self.alternatives[name] = span
        return super().number(name, span)


def spaces() -> list[Space]:
    return [*(load_space(name) for name in shipped_names("search")), space_of(ANY, "any")]


@pytest.mark.parametrize("space", spaces(), ids=lambda s: s.name)
def test_yields_only_variants_the_spec_accepts(space: Space) -> None:
    refused: list[str] = []
    for seed in range(SAMPLES):
        try:
            design = sample(space.positions, RandomChooser(seed), lambda variant: 1, None)
        except InfeasibleError as error:
            refused.append(error.reason)
            continue
        again = load_variant(design.variant.to_dict())
        assert again.fingerprint() == design.variant.fingerprint()
    assert all(refused)
    assert len(refused) <= SAMPLES // 20, "illegal combinations are avoided by conditions, not by chance"


@pytest.mark.parametrize("space", spaces(), ids=lambda s: s.name)
def test_dimensions_exist_only_under_their_parent(space: Space) -> None:
    known: dict[str, Any] = {}
    for seed in range(SAMPLES):
        chooser = Recorder(seed)
        try:
            walk(space.positions, chooser, solve=False)
        except InfeasibleError:
            continue
        answers = {re.sub(r"\{[^{}]*\}$", "", name): value for name, value in chooser.asked.items()}
        for name in chooser.asked:
            for parent, label in parents(name):
                assert str(answers.get(parent, label)) == label, f"{name} without {parent}={label}"
        for name, alternatives in chooser.alternatives.items():
            assert known.setdefault(name, alternatives) == alternatives, f"{name} changes its alternatives"


def parents(name: str) -> list[tuple[str, str]]:
    """The answers a dimension's name says it stands under."""
    plain = re.sub(r"\{[^{}]*\}", "", name)
    steps = re.split(r"\.(?!\d)", plain)
    found = []
    for index, step in enumerate(steps[:-1]):
        if "=" in step:
            head, _, label = step.partition("=")
            found.append((".".join([*steps[:index], head]), label))
    return found


def test_an_absent_module_asks_nothing() -> None:
    space = space_of(ANY)
    for seed in range(50):
        chooser = RandomChooser(seed)
        walk(space.positions, chooser, solve=False)
        if chooser.asked["2.present"] is False:
            assert not [name for name in chooser.asked if name.startswith("2.") and name != "2.present"]


def test_a_number_the_table_leaves_no_freedom_is_not_asked() -> None:
    space = space_of("modules: [{templates: {a: any}}]")
    seen = set()
    for seed in range(100):
        chooser = RandomChooser(seed)
        module = walk(space.positions, chooser, solve=False).modules[0]
        asked = "a.length_bias" in chooser.asked
        assert asked == (module["merge"] == "compete_length")
        seen.add(asked)
    assert seen == {True, False}


def test_a_single_choice_is_no_dimension() -> None:
    space = space_of("modules: [{templates: {a: {placement: outside, feature_map: [elu], memory: matrix}}}]")
    chooser = RandomChooser(0)
    module = walk(space.positions, chooser, solve=False).modules[0]
    assert chooser.asked == {}
    assert module["feature_map"]["kind"] == "elu"


def test_star_frees_what_a_mapping_leaves_out() -> None:
    text = 'modules: [{templates: {a: {placement: outside, memory: {kind: slots, score: relu, "*": any}}}}]'
    chooser = RandomChooser(0)
    module = walk(space_of(text).positions, chooser, solve=False).modules[0]
    assert module["memory"]["score"] == "relu"
    assert {"a.memory.count", "a.memory.per"} <= set(chooser.asked)


def test_the_tree_is_printed_with_its_size() -> None:
    space = load_space("quickstart")
    text = "\n".join(lines(space.positions))
    assert "width in 1..256, solved for the budget" in text
    assert "merge in {compete, compete_length}" in text
    assert size(space.positions) == sum(int(n) for n in re.findall(r": (\d+) structures", text))


def test_a_map_made_of_a_map_is_a_finite_choice() -> None:
    """`any` frees the base too, among the maps that are made of nothing else."""
    space = space_of(
        "modules: [{templates: {a: {placement: outside, memory: matrix, feature_map: {kind: film, base: any}}}}]"
    )
    seen = set()
    for seed in range(200):
        chooser = RandomChooser(seed)
        module = walk(space.positions, chooser, solve=False).modules[0]
        assert chooser.asked["a.feature_map.base"] == module["feature_map"]["base"]["kind"]
        seen.add(module["feature_map"]["base"]["kind"])
    assert seen == set(kinds("feature_map")) - {"film"}
    assert len("\n".join(lines(space.positions))) < 10_000


def test_sharing_is_asked_of_maps_with_parameters_only() -> None:
    maps = "[elu, favor_plus, hedgehog, {kind: taylor, width: [null, 4]}, {kind: film, base: elu}]"
    space = space_of(
        f"modules: [{{templates: {{a: {{placement: outside, memory: matrix, feature_map: {maps}, phi_per: any}}}}}}]"
    )
    for seed in range(100):
        chooser = Recorder(seed)
        module = walk(space.positions, chooser, solve=False).modules[0]
        phi = ModuleSpec.model_validate(module).feature_map
        assert isinstance(phi, FeatureMapSpec)
        asked = [name for name in chooser.alternatives if name.startswith("a.phi_per")]
        if phi.has_parameters():
            assert asked == ["a.phi_per"]
        elif phi.random:
            assert chooser.alternatives[asked[0]] == ("query_head", "model")
        else:
            assert asked == []


MODULE = "modules: [{{templates: {{a: {{placement: outside, memory: matrix, feature_map: elu, {}}}}}}}]"
ERRORS = [
    (
        "modules: [{templates: {a: {placement: outside}}}]",
        "t.yaml:1: modules[0].templates.a: 'memory' is missing",
    ),
    (MODULE.format("gat: none"), "unknown key 'gat'; did you mean 'gate'?"),
    (
        "modules: [{placement: outside, memory: matrix, feature_map: [elu, gelu]}]",
        "modules[0]: a module of a space stands under a name of yours",
    ),
    (
        MODULE.format("site: [head, fnn]"),
        "modules[0].templates.a.site[1]: 'fnn' is not valid here; did you mean 'ffn'?",
    ),
    (MODULE.format("gate: [none, scaler]"), "unknown kind 'scaler'; did you mean 'scalar'?"),
    (
        "modules: [{templates: {a: {placement: outside, memory: matrix, feature_map: {kind: film, base: film}}}}]",
        "modules[0].templates.a.feature_map.base: 'film' is made of another feature_map and cannot stand inside one",
    ),
    (MODULE.format("gate: []"), "a choice needs at least one value"),
    (MODULE.format("length_bias: {low: 1, hihg: 2}"), "unknown key 'hihg'; did you mean 'high'?"),
    (MODULE.format("length_bias: {low: 3, high: 2}"), "with low <= high"),
    (MODULE.format("query: {temperature: {low: 0, high: 2, log: true}}"), "a log scale needs low > 0"),
    (MODULE.format("scope: {layers: {last: solve}}"), "write {solve: [low, high]}"),
    (MODULE.format("query: {temperature: solve}"), "only a whole number"),
    (MODULE.format("site: head") + "\nsearch: {trails: 3}", "unknown key 'trails'; did you mean 'trials'?"),
    (
        MODULE.format("site: head") + "\nrates: {centre: {slot: 1}}",
        "unknown key 'slot'; did you mean 'slots'?",
    ),
    (
        MODULE.format("site: head") + "\nanchors: [prefix-tuning, lora-vq]",
        "t.yaml:2: anchors[1]: no shipped variant is called 'lora-vq' and no such file exists; did you mean 'lora-qv'?",
    ),
    (MODULE.format("site: head") + "\nanchors: [mine.yaml]", "t.yaml:2: anchors[0]: mine.yaml"),
    (
        MODULE.format("site: head") + "\nbudget: {parameters: {like: lora-vq}}",
        "t.yaml:2: budget.parameters: no shipped variant is called 'lora-vq'",
    ),
    ("modules: [{optional: true, templates: {a: any}}]", "every module is optional"),
    (
        MODULE.format("site: head") + "\ntraining: {nonsense: 3}",
        "t.yaml:2: training.nonsense: unknown key 'nonsense'",
    ),
    (MODULE.format("site: head") + "\ntraining: {stpes: 3}", "unknown key 'stpes'; did you mean 'steps'?"),
    (
        MODULE.format("site: head") + "\ntraining:\n  learning_rate: 0.1",
        "t.yaml:3: training.learning_rate: the search tunes rates itself",
    ),
    (
        MODULE.format("site: head") + "\ndata: {limti: 3}",
        "t.yaml:2: data.limti: unknown key 'limti'; did you mean",
    ),
    (MODULE.format("site: head") + "\ndata: {columns.txet: a}", "unknown key 'txet'; did you mean 'text'?"),
    ("modules: []", "modules"),
    ("[]", "expected a mapping"),
]


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_errors_name_the_place(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        space_of(text, "t")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_the_data_are_a_part_of_a_task() -> None:
    """What only the whole task can tell is not asked of them."""
    space_of(MODULE.format("site: head") + "\ndata: {skip_other_labels: true, columns.text: review}")


def test_an_unknown_space_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'quickstart'"):
        load_space("quikstart")


def test_counts_are_remembered(skeleton: nn.Module) -> None:
    counter = Counter(skeleton)
    variant = load_variant("prefix-tuning-plus")
    assert counter(variant) == counter(variant) == 36_864
    assert len(counter.known) == 1


@pytest.mark.parametrize("space", spaces(), ids=lambda s: s.name)
def test_the_guide_leaves_out_what_its_rules_refuse(space: Space) -> None:
    """With the guide no design of a shipped space breaks a rule: all of them leave another choice."""
    broken = {}
    for guide in (True, False):
        found = []
        for seed in range(SAMPLES):
            try:
                draft = walk(
                    space.positions, RandomChooser(seed), solve=False, guide=Facts() if guide else None
                )
                variant = load_variant({"name": "sampled", "modules": draft.modules})
            except (InfeasibleError, SpecError):
                continue
            found += [a.rule.id for a in advice(variant) if a.rule.severity != "consider"]
        broken[guide] = found
    assert not broken[True]
    assert broken[False] or space.name not in ("any", "full-equation", "quickstart", "tune-one-variant")


def test_a_rule_that_a_later_choice_cannot_keep_refuses_the_design() -> None:
    """Slots with values speak at once, and neither of the gates that are chosen later can quiet them."""
    text = """
modules:
  - templates:
      a:
        placement: outside
        memory: {kind: slots, value_init: [zeros, {kind: normal, std: 0.5}]}
        gate: [none, {kind: scalar, activation: sigmoid}]
"""
    kept, refused = set(), set()
    for seed in range(20):
        try:
            draft = walk(space_of(text).positions, RandomChooser(seed), solve=False, guide=Facts())
            kept.add(draft.modules[0]["memory"]["value_init"]["kind"])
        except InfeasibleError as error:
            refused.add(error.rule)
    assert kept == {"zeros"}
    assert refused == {"identity-at-init"}


def test_the_guide_yields_where_a_space_leaves_one_choice() -> None:
    """A rule never makes a space infeasible."""
    text = MODULE.format("query: {norm: none}").replace("elu", "squared_relu")
    draft = walk(space_of(text).positions, RandomChooser(0), solve=False, guide=Facts())
    assert draft.modules[0]["feature_map"]["kind"] == "squared_relu"


def test_the_guide_closes_a_dead_branch() -> None:
    """A memory that reads zero is never put behind a gate that starts at zero."""
    text = """
modules:
  - templates:
      a:
        placement: outside
        feature_map: elu
        memory: matrix
        gate: [none, {kind: scalar, activation: tanh, init: 0.0}, {kind: token, activation: sigmoid}]
"""
    asked = {True: set(), False: set()}
    for seed in range(40):
        for guide in (True, False):
            draft = walk(
                space_of(text).positions, RandomChooser(seed), solve=False, guide=Facts() if guide else None
            )
            asked[guide].add(draft.modules[0]["gate"]["kind"])
    assert asked == {True: {"none", "token"}, False: {"none", "scalar", "token"}}


def test_the_guide_is_told_of_the_model() -> None:
    """Queries known to be level leave a quadratic map the choice of the norm; others, and unknown ones, do not."""
    text = MODULE.format("query: {norm: [none, rms]}").replace("elu", "squared_relu")
    asked = {}
    for facts in (Facts(), Facts(query_scale=(0.1, 1.5)), Facts(query_scale=(0.9, 1.5))):
        drafts = [
            walk(space_of(text).positions, RandomChooser(s), solve=False, guide=facts) for s in range(20)
        ]
        asked[facts.query_scale] = {draft.modules[0]["query"]["norm"] for draft in drafts}
    assert asked == {None: {"rms"}, (0.1, 1.5): {"rms"}, (0.9, 1.5): {"none", "rms"}}
