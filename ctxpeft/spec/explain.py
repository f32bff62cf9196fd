"""A sentence for each mistake of a spec that does not validate: where, what was expected, the nearest valid name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ctxpeft.errors import MOST, SpecError, did_you_mean
from ctxpeft.spec.base import NAME, NAME_RULE
from ctxpeft.spec.document import Document, dotted, one_line
from ctxpeft.spec.fields import choice_at, keys_at
from ctxpeft.spec.mistakes import NOT_THIS_TYPE, mistakes, written_path
from ctxpeft.spec.registry import Kinds, kinds

__all__ = ["dotted", "shown", "spec_error", "wrong_kind"]

Context = Mapping[str, Any]

_EXPECTED: dict[str, Callable[[Context], str]] = {
    "int_type": lambda _: "a whole number",
    "int_parsing": lambda _: "a whole number",
    "int_from_float": lambda _: "a whole number",
    "int_parsing_size": lambda _: "a whole number of ordinary size",
    "float_type": lambda _: "a number",
    "float_parsing": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "bool_type": lambda _: "true or false",
    "bool_parsing": lambda _: "true or false",
    "string_type": lambda _: "text",
    "list_type": lambda _: "a list",
    "dict_type": lambda _: "a mapping",
    "model_type": lambda _: "a mapping",
    "model_attributes_type": lambda _: "a mapping",
    "literal_error": lambda c: " or ".join(f"'{name}'" for name in _literals(c)),
    "greater_than_equal": lambda c: f"{_number(c['ge'])} ≥ {c['ge']:g}",
    "greater_than": lambda c: f"{_number(c['gt'])} > {c['gt']:g}",
    "less_than_equal": lambda c: f"{_number(c['le'])} ≤ {c['le']:g}",
    "less_than": lambda c: f"{_number(c['lt'])} < {c['lt']:g}",
    "too_short": lambda c: f"a list with at least {c['min_length']} item",
    "string_too_short": lambda c: f"at least {c['min_length']} characters",
    "string_too_long": lambda c: f"at most {c['max_length']} characters",
    "string_pattern_mismatch": lambda c: (
        NAME_RULE if c["pattern"] == NAME else f"text that matches {c['pattern']}"
    ),
}
_NOT_A_KIND = ("union_tag_invalid", "union_tag_not_found", "model_attributes_type")


def spec_error(
    error: ValidationError, document: Document, root: type[BaseModel], several: str = ""
) -> SpecError:
    """Turn pydantic's report into a SpecError about its most specific problem; `mistakes` tells the others too.

    several: what to add where a list of several values, or a range of numbers, stands for one value.
    """
    groups = mistakes(error.errors(include_url=False), document.data, MOST + 1)
    told = [_told(group, document, root, several) for group in groups]
    return SpecError(told[0][1], [sentence for _, sentence in sorted(told, key=lambda one: one[0])])


def _told(
    problems: Sequence[ErrorDetails], document: Document, root: type[BaseModel], several: str
) -> tuple[int, str]:
    """The line of a mistake, and its sentence."""
    problem = problems[0]
    path = written_path(problem, document.data)
    if problem["type"] == "illegal_combination":
        path = (*path, *str(problem["ctx"]["key"]).split("."))
    sentence = _sentence(problems, root)
    if several and problem["type"] in (*NOT_THIS_TYPE, *_NOT_A_KIND) and _is_choice(problem.get("input")):
        sentence += f"; {several}"
    return document.line(path), one_line(f"{document.where(path)}: {sentence}")


def _is_choice(given: Any) -> bool:
    """Whether a value is written as a search space writes a choice: several values, or a range."""
    if isinstance(given, Mapping):
        return {"low", "high"} <= given.keys()
    return isinstance(given, list) and len(given) > 1


def _sentence(problems: Sequence[ErrorDetails], root: type[BaseModel]) -> str:
    """What is wrong; several problems are the alternatives of one union."""
    problem = problems[0]
    kind, location, given = problem["type"], problem["loc"], problem.get("input")
    context: Context = problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key '{location[-1]}'{did_you_mean(str(location[-1]), keys_at(root, location[:-1]))}"
    if kind == "missing":
        return "missing; this key is required"
    if kind == "invalid_key":
        return f"a key must be text, found {shown(given)}"
    choice = choice_at(root, location)
    if choice is not None and kind in _NOT_A_KIND:
        return _about_kind(choice, given)
    if kind == "literal_error" and len(problems) == 1:
        return f"{shown(given)} is not valid here{did_you_mean(str(given), _literals(context))}"
    if all(p["type"] in _EXPECTED for p in problems):
        expected = " or ".join(dict.fromkeys(_EXPECTED[p["type"]](p.get("ctx", {})) for p in problems))
        return f"expected {expected}, found {shown(given)}"
    if kind == "illegal_combination":
        return str(context["reason"])
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return message if kind in ("value_error", "kind_as_text") else f"{message}, found {shown(given)}"


def _about_kind(choice: Kinds, given: Any) -> str:
    """A block that is not a mapping with an installed kind."""
    known = choice.installed()
    if isinstance(given, str):
        example = given if given in known else next(iter(known))
        return f"expected a mapping such as {{kind: {example}}}, found {shown(given)}"
    if not isinstance(given, Mapping):
        return f"expected a mapping with a 'kind', found {shown(given)}"
    if "kind" not in given:
        return f"missing 'kind'{did_you_mean('', known)}"
    return wrong_kind(choice, given["kind"])


def wrong_kind(choice: Kinds, kind: Any) -> str:
    """What to say of a kind that cannot stand here: the nearest name, and where kinds come from."""
    if kind in list(kinds(choice.family)):
        return f"{shown(kind)} is made of another {choice.family} and cannot stand inside one"
    hint = did_you_mean(str(kind), choice.installed())
    return f"unknown kind {shown(kind)}{hint} (kinds come from installed packages)"


def shown(value: Any) -> str:
    """A value as a message shows it: short, and a container only by its name."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."


def _literals(context: Context) -> list[str]:
    return [name.strip().strip("'") for name in str(context["expected"]).replace(" or ", ", ").split(",")]


def _number(bound: Any) -> str:
    return "a whole number" if isinstance(bound, int) else "a number"
