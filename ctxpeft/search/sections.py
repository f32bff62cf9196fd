"""The sections of a space that other commands own, `training` and `data`: checked as those would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from ctxpeft.errors import SpecError
from ctxpeft.spec.explain import spec_error
from ctxpeft.spec.yaml_lines import Document

OWN = {
    "learning_rate": "the search tunes rates itself; set rates.multipliers, rates.widen or rates.centre",
    "seed": "the search gives every run its seed; set search.seed",
}
"""Settings of `ctxpeft train` that a search decides, and where its user says what it may."""


def checks(document: Document) -> list[Callable[[], None]]:
    """What is to be called to check both; each raises SpecError with the place of every mistake."""
    return [partial(_training, document), partial(_data, document)]


def nested(values: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`base` with values put into it, of which a dotted key is put into the mapping that stands there: with
    `{"parameters.like": "lora-qv"}` it has `{"parameters": {"like": "lora-qv"}}`.
    """
    found = dict(base or {})
    for key, value in values.items():
        head, _, rest = key.partition(".")
        inside = found.get(head)
        found[head] = {**(inside if isinstance(inside, Mapping) else {}), rest: value} if rest else value
    return found


def _training(document: Document) -> None:
    from ctxpeft.training import TrainingConfig

    given = document.data.get("training")
    for key, why in OWN.items():
        if isinstance(given, Mapping) and given.get(key) is not None:
            raise SpecError(f"{document.where(('training', key))}: {why}")
    _check(document, "training", TrainingConfig)


def _data(document: Document) -> None:
    """Keys and values; whether they go together is for the task to say, of which they are a part."""
    from ctxpeft.tasks import TaskSpec

    given = document.data.get("data")
    data = nested(given) if isinstance(given, Mapping) else given
    _check(
        Document({**document.data, "data": data}, document.lines, document.name), "data", TaskSpec, part=True
    )


def _check(document: Document, section: str, kind: type[BaseModel], part: bool = False) -> None:
    if not document.data.get(section):
        return
    root = create_model("Sections", **{section: (kind, ...)})  # type: ignore[call-overload]
    try:
        root.model_validate(document.data)
    except ValidationError as error:
        if not (part and all(found["loc"] == (section,) for found in error.errors())):
            raise spec_error(error, document, root) from None
