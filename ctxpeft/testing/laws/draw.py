"""What hypothesis draws for the laws of the algebra."""

from __future__ import annotations

from typing import Any

from ctxpeft.testing.heads import MASKS, Problem
from ctxpeft.testing.laws.law import AlgebraLaw, Interval

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("ctxpeft.testing.laws.AlgebraLaws needs hypothesis: pip install hypothesis") from error


def problems(law: AlgebraLaw) -> st.SearchStrategy[Problem]:
    """Random heads for a law: MHA, GQA and MQA, every mask it is stated for, sinks, softcap and past where it is."""
    return st.builds(
        Problem,
        seed=st.integers(0, 10_000),
        batch=st.integers(1, 2),
        kv_heads=st.integers(1, 2),
        repeat=st.integers(1, 3),
        tokens=st.integers(1, 5),
        width=st.integers(1, 5),
        value_width=st.integers(1, 4),
        mask=st.sampled_from(tuple(law.masks) or MASKS),
        window=st.integers(1, 4),
        past=st.integers(0, 3) if law.past else st.just(0),
        sinks=st.booleans() if law.sinks else st.just(False),
        softcap=st.sampled_from([None, 1.5]) if law.sinks else st.none(),
    )


def choices(law: AlgebraLaw, modules: Any = None) -> st.SearchStrategy[dict[str, Any]]:
    """The other arguments of a law; `modules` (data, or a strategy) in place of ours."""
    drawn: dict[str, st.SearchStrategy[Any]] = {}
    for name, choice in law.choices.items():
        if isinstance(choice, Interval):
            drawn[name] = st.floats(choice.low, choice.high)
        elif name == "module" and modules is not None:
            drawn[name] = modules if isinstance(modules, st.SearchStrategy) else st.sampled_from(modules)
        else:
            drawn[name] = st.sampled_from(choice)
    return st.fixed_dictionaries(drawn)
