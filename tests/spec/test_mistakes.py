"""pydantic's reports, sorted into mistakes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ctxpeft.spec.base import Spec
from ctxpeft.spec.mistakes import mistakes, written_path


class Circle(Spec):
    radius: int


class Box(Spec):
    width: int
    height: int


class Drawing(Spec):
    shape: Circle | Box
    scale: int | list[int] = 1
    title: str = ""


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"shape": {"radius": 1}, "title": 3}, {"title"}),
        ({"shape": {"radious": 1}, "title": 3}, {"shape.radious", "title"}),
        ({"shape": {"width": 1}}, {"shape.width", "shape.radius"}),
        ({"shape": {"radius": 1}, "scale": [1, "x", "y"]}, {"scale.1", "scale.2"}),
        ({"shape": {"radius": 1}, "scale": "x"}, {"scale"}),
        ({"sahpe": {"radius": 1}}, {"sahpe"}),
        ({"shpe": {"radius": 1}, "other": 1}, {"shpe", "other"}),
        ({"other": 1}, {"other", "shape"}),
    ],
)
def test_an_alternative_that_failed_is_no_mistake_of_its_own(data: Any, told: set[str]) -> None:
    """Of a union one alternative is told about; a misspelt key explains the one that is missing."""
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(data)
    groups = mistakes(caught.value.errors(), data, most=10)
    places = [".".join(map(str, written_path(group[0], data))) for group in groups]
    assert set(places) == told
    assert len(places) == len(told)


def test_alternatives_that_all_failed_on_the_type_are_one_mistake() -> None:
    data = {"shape": {"radius": 1}, "scale": "x"}
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(data)
    ((first, second),) = mistakes(caught.value.errors(), data, most=10)
    assert {first["type"], second["type"]} == {"int_type", "list_type"}
