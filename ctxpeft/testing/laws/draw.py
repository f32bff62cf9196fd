"""What hypothesis draws for the laws of the algebra."""

from __future__ import annotations

from typing import Any

from ctxpeft.testing.heads import Problem
from ctxpeft.testing.laws.law import AlgebraLaw, Interval
from ctxpeft.testing.laws.sweep import dimensions

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("ctxpeft.testing.laws.AlgebraLaws needs hypothesis: pip install hypothesis") from error


def problems(law: AlgebraLaw) -> st.SearchStrategy[Problem]:
    """Random heads for a law."""
    return st.builds(Problem, **{name: st.sampled_from(values) for name, values in dimensions(law).items()})


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
