"""Layers and heads in scope."""

from __future__ import annotations

from typing import Any

import pytest

from ctxpeft.errors import HostError
from ctxpeft.spec.scope import Scope


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ({"first": 2}, [0, 1]),
        ({"last": 2}, [4, 5]),
        ({"last": 6}, [0, 1, 2, 3, 4, 5]),
        ({"last": 0.5}, [3, 4, 5]),
        ({"first": 0.4}, [0, 1, 2]),
        ({"last": 0.01}, [5]),
        ({"every": 1}, [0, 1, 2, 3, 4, 5]),
        ({"every": 2}, [1, 3, 5]),
        ({"every": 4}, [1, 5]),
        ([5, 0], [0, 5]),
    ],
)
def test_layers_of_six(layers: Any, expected: list[int]) -> None:
    assert Scope(layers=layers).layer_indices(6) == expected


@pytest.mark.parametrize("layers", [{"first": 7}, {"last": 7}, [6]])
def test_layers_the_model_does_not_have(layers: Any) -> None:
    with pytest.raises(HostError, match="layers"):
        Scope(layers=layers).layer_indices(6)


def test_heads() -> None:
    assert Scope().head_indices(3) == (0, 1, 2)
    assert Scope(heads=[2, 0]).head_indices(3) == (0, 2)
    with pytest.raises(HostError, match="head 3"):
        Scope(heads=[3]).head_indices(3)
