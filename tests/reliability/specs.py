"""Spec files from strangers: whatever they hold, a spec or one sentence, and nothing is imported or run.

    python -m tests.reliability specs --examples 100000

Each kind of input is drawn by hypothesis and given to what `ctxpeft validate` calls. A variant that is accepted is also
written, read back, printed as an equation and advised upon; a space has its grammar checked against the types.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import nn

from ctxpeft.cli._documents import read_spec
from ctxpeft.cli._model import empty_model
from ctxpeft.cli._overrides import parse_overrides, set_path
from ctxpeft.errors import CtxpeftError
from ctxpeft.hosts.count import count_parameters
from ctxpeft.search.spacefile import space_from_document
from ctxpeft.shipped import shipped_file, shipped_names
from ctxpeft.spec.document import Document, one_line
from ctxpeft.spec.equation import variant_equations
from ctxpeft.spec.guide import Facts, advice
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.peft import INJECTABLE
from ctxpeft.spec.variant import Variant
from ctxpeft.spec.yaml_lines import dump_yaml, parse_yaml
from ctxpeft.tasks import load_task
from ctxpeft.testing import strategies
from ctxpeft.training import MINI
from tests.reliability.watch import watched

CODE = (
    "os:system",
    "os.system",
    "builtins.eval",
    "ctxpeft.blocks.gates.none:NoGate",
    "__import__('os').system('true')",
    "../../../etc/passwd",
    "/etc/passwd",
    "megatron.core",
    "{0.__class__}",
)
# fmt: off
WORDS = [
    "none", "all", "any", "solve", "head", "ffn", "inside", "outside", "scale", "mass", "weight", "kind", "model",
    "layer", "slots", "matrix", "vector", "edit", "elu", "film", "projection", "favor_plus", "taylor", "scalar",
    "token", "constant", "zeros", "normal", "text", "demonstrations", "prompt", "mlp", "query_head", "LORA", "IA3",
    "like:ia3", "megatron_core",
]
# fmt: on
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(WORDS)
    | st.sampled_from(CODE)
    | st.sampled_from([0, 1, -1, 65536, 1 << 40, 10**400, 1e308, -0.0])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=8) | st.sampled_from(["kind", "low", "high", "solve", "*"]), inner, max_size=3
        )
        | st.builds(
            lambda kind, rest: {**rest, "kind": kind},
            inner,
            st.dictionaries(st.sampled_from(WORDS), inner, max_size=2),
        )
    ),
    max_leaves=6,
)
MARKS = (
    "&a |*a|!!|<<: |? |- |: |{|}|[|]|\t|\n|---\n|...\n|>\n|%YAML 1.1\n|'|\"|#|\x00|\ufeff|\u2028|.nan|1e999|~|,|\r|"
    "!!python/object/apply:os.system ['true']|!!python/name:os.system|!!binary aGk=|&a [*a, *a]|{{|0x|1_0|-|=|@|`|\x85"
)
FRAGMENTS = st.sampled_from(MARKS.split("|")).map(str.encode) | st.just(b"\xff") | st.binary(max_size=3)
BYTES = st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))


def shipped(kind: str) -> list[bytes]:
    """The files of everything shipped of a kind."""
    return [path.read_bytes() for name in shipped_names(kind) if (path := shipped_file(kind, name))]


@st.composite
def edited(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """A shipped file with bytes cut out and put in."""
    content = draw(st.sampled_from(files))
    for start, length, new in draw(
        st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 12), FRAGMENTS), min_size=1, max_size=4)
    ):
        start %= len(content) + 1
        content = content[:start] + new + content[start + length :]
    return content


@st.composite
def changed(draw: st.DrawFn, trees: st.SearchStrategy[Any]) -> Any:
    """A tree with values replaced, nudged, removed, renamed, or taken from elsewhere in the tree."""
    tree = copy.deepcopy(draw(trees))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        places = list(_places(tree))
        if not places:
            return draw(VALUES)
        node, key = draw(st.sampled_from(places))
        act = draw(st.sampled_from(("value", "nudge", "nudge", "drop", "rename", "graft", "add")))
        if act == "value":
            node[key] = draw(VALUES)
        elif act == "nudge":
            node[key] = draw(_near(node[key]))
        elif act == "drop":
            del node[key]
        elif act == "graft":
            other, name = draw(st.sampled_from(places))
            node[key] = copy.deepcopy(other[name])
        elif isinstance(node, dict):
            name = draw(
                st.sampled_from(WORDS) | st.text(max_size=6) | st.sampled_from(["gate", "scope", "per"])
            )
            node[name] = node.pop(key) if act == "rename" else draw(VALUES)
    return tree


def _near(value: Any) -> st.SearchStrategy[Any]:
    """A value of the same type, often legal in the same place."""
    if isinstance(value, bool):
        return st.just(not value)
    if isinstance(value, int | float) and abs(value) < 1e9:
        return st.sampled_from([value + 1, value * 2, value / 2, -value, 0, 1, 64, 65536, 0.5])
    if isinstance(value, str):
        return st.sampled_from(WORDS) | st.just(value.upper()) | st.just(value[:-1]) | st.text(max_size=12)
    return VALUES


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key of a tree."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from _places(node[key])


def _trees(kind: str) -> st.SearchStrategy[Any]:
    return st.sampled_from([parse_yaml(text.decode(), kind).data for text in shipped(kind)])


@st.composite
def settings_of_a_variant(draw: st.DrawFn) -> tuple[str, str]:
    """A shipped variant, and a `path=value` for it: a place it has with a value near its own, or anything."""
    name = draw(st.sampled_from(shipped_names("variants")))
    tree = load_variant(name).model_dump(mode="json", exclude_none=True)
    paths = list(_paths(tree))
    if draw(st.booleans()):
        path, value = draw(st.sampled_from(paths))
        return name, f"{path}={dump_yaml(draw(_near(value))).strip()}"
    steps = st.sampled_from([step for path, _ in paths for step in path.split(".")]) | st.text(max_size=4)
    path = ".".join(draw(st.lists(steps, min_size=1, max_size=4)))
    return name, f"{path}={draw(VALUES.map(lambda v: dump_yaml(v).strip()) | st.text(max_size=20))}"


def _paths(tree: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every place of a tree as a setting names it, with its value."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield f"{before}{key}", value
        yield from _paths(value, f"{before}{key}.")


def read_file(folder: Path, content: bytes) -> None:
    """A file, as `ctxpeft validate` reads it."""
    file = folder / "file.yaml"
    file.write_bytes(content)
    with watched() as acts:
        found = read_spec(file)
        if found.kind == "variant":
            use(load_variant(file))
    assert not acts, acts


def read_tree(folder: Path, tree: Any) -> None:
    """Plain data as a variant, and the file it would be written to."""
    with watched() as acts:
        variant = load_variant(tree)
        use(variant)
    assert not acts, acts
    read_file(folder, variant.to_yaml().encode())


def read_space(folder: Path, tree: Any) -> None:
    """Plain data as a search space."""
    with watched() as acts:
        space_from_document(Document(tree, {}, "space"), "space", folder)
    assert not acts, acts


def read_task(folder: Path, tree: Any) -> None:
    """Plain data as a task."""
    with watched() as acts:
        if isinstance(tree, dict):
            load_task(tree)
    assert not acts, acts


def apply_setting(folder: Path, pair: tuple[str, str]) -> None:
    """`variant.<path>=<value>` on a shipped variant."""
    name, setting = pair
    with watched() as acts:
        tree = load_variant(name).to_dict()
        for path, value in parse_overrides([setting]):
            set_path(tree, path, value)
        use(load_variant(tree))
    assert not acts, acts


def use(variant: Variant) -> None:
    """What every command does with a variant it accepted; it must read back as itself."""
    again = load_variant(variant.to_dict())
    assert again == variant
    assert again.fingerprint() == variant.fingerprint()
    assert all(one_line(equation) == equation for equation in variant_equations(variant))
    advice(variant, Facts(input_length=4096, examples=10, gqa=4))
    with contextlib.suppress(CtxpeftError):
        count_parameters(_skeleton(), variant)


@cache
def _skeleton() -> nn.Module:
    return empty_model(MINI)


@dataclass(frozen=True)
class Target:
    """One kind of input, and what reads it."""

    name: str
    inputs: st.SearchStrategy[Any]
    read: Callable[[Path, Any], None]


def targets() -> list[Target]:
    """All of them."""
    drawn = strategies.variants().map(lambda variant: variant.to_dict())
    task = load_task("docstring-area").model_dump(exclude_defaults=True)
    return [
        Target("raw bytes and text, as a file", BYTES, read_file),
        Target("shipped variants, bytes edited", edited(shipped("variants")), read_file),
        Target("shipped variants, values changed", changed(_trees("variants")), read_tree),
        Target("drawn variants, values changed", changed(drawn), read_tree),
        Target("shipped spaces, bytes edited", edited(shipped("search")), read_file),
        Target("shipped spaces, values changed", changed(_trees("search")), read_space),
        Target("the shipped task, values changed", changed(st.just(task)), read_task),
        Target("settings of a variant, path=value", settings_of_a_variant(), apply_setting),
    ]


@dataclass
class Tally:
    """What became of the inputs of one target."""

    name: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    longest: int = 0


def fuzz(target: Target, examples: int, folder: Path, start: int = 0) -> Tally:
    """Give the target this many inputs. Raises what escapes, with the smallest input that does it."""
    tally = Tally(target.name)

    @seed(start)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(value=target.inputs)
    def one(value: Any) -> None:
        tally.inputs += 1
        began = time.perf_counter()
        try:
            target.read(folder, value)
            tally.accepted += 1
        except CtxpeftError as error:
            sentence = str(error)
            assert sentence == one_line(sentence), repr(sentence)
            tally.refused += 1
            tally.longest = max(tally.longest, len(sentence))
        tally.slowest = max(tally.slowest, time.perf_counter() - began)

    _warm_up()
    one()
    return tally


@cache
def _warm_up() -> None:
    """What is imported once, by those who ask and by those who ask in vain, before anything is watched."""
    tuners = [{"name": "x", "peft": {"peft_type": kind, "target_modules": ["q_proj"]}} for kind in INJECTABLE]
    for what in (*shipped_names("variants"), *tuners, "prefix-tunin"):
        with contextlib.suppress(CtxpeftError):
            use(load_variant(what))
