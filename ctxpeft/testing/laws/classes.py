"""Test classes that run the laws under pytest. Subclass one, name what is yours, and every law is a test.

class TestMine(AlgebraLaws):
    modules = [{"placement": "outside", "feature_map": {"kind": "mine"}, "memory": {"kind": "matrix"}}]
    laws = ["modules-are-causal", "padding-keys", "rows-are-independent"]

class TestMyVariant(HostLaws):
    variants = ["my-variant.yaml"]

    def model(self):
        return tiny_model("llama")
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant
from ctxpeft.testing.laws.law import AlgebraLaw, Ground, HostLaw, Law, SpecLaw, law, laws

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AnyVariant = str | os.PathLike[str] | Mapping[str, Any] | Variant


def _chosen(named: Sequence[str | Law] | None, ground: Ground) -> list[Any]:
    if named is None:
        return list(laws(ground))
    return [law(item) if isinstance(item, str) else item for item in named]


class AlgebraLaws:
    """Runs laws of the algebra: on problems and choices that hypothesis draws and shrinks, and on every combination of
    choices with an evenly drawn problem.

    laws: ids or laws; all of the ground when left out. modules: modules as data (or a hypothesis strategy of them)
    in place of ours, for the laws that hold for every module. max_examples: what hypothesis draws a law, in proportion
    more under a hypothesis profile of more than 100 examples.
    """

    laws: Sequence[str | Law] | None = None
    modules: Any = None
    max_examples: int = 25

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if "law" in metafunc.fixturenames:
            chosen = _chosen(self.laws, "algebra")
            metafunc.parametrize("law", chosen, ids=[found.id for found in chosen])

    def test_law(self, law: AlgebraLaw) -> None:
        """The law holds on every problem that is drawn."""
        from hypothesis import given, settings

        from ctxpeft.testing.laws import draw
        from ctxpeft.testing.laws.sweep import sweep

        scale = max(1, settings().max_examples // 100)

        @settings(max_examples=(law.examples or self.max_examples) * scale)
        @given(draw.problems(law), draw.choices(law, self.modules))
        def holds(problem: Any, choices: Mapping[str, Any]) -> None:
            law.holds(problem.heads(), **choices)

        holds()
        swept = self.modules if isinstance(self.modules, Sequence) else None
        for problem, choices in sweep(law, self.max_examples, swept):
            try:
                law.holds(problem.heads(), **choices)
            except AssertionError as error:
                raise AssertionError(f"{law.id} with {choices} on {problem}: {error}") from error


class SpecLaws:
    """Runs laws of variants as data on `variants`: names, files, data."""

    laws: Sequence[str | Law] | None = None
    variants: Sequence[AnyVariant] = ()

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if {"law", "variant"} <= set(metafunc.fixturenames):
            cases = [(a, load_variant(v)) for v in self.variants for a in _chosen(self.laws, "spec")]
            metafunc.parametrize(("law", "variant"), cases, ids=[f"{a.id}-{v.name}" for a, v in cases])

    def test_law(self, law: SpecLaw, variant: Variant) -> None:
        """The law holds for the variant."""
        law.holds(variant)


class HostLaws:
    """Runs laws of hosts: every law that applies, for each of `variants`, on the model that `model` makes.

    laws: ids or laws; all of the ground when left out. std: how far parameters are moved from their init.
    """

    laws: Sequence[str | Law] | None = None
    variants: Sequence[AnyVariant] = ()
    std: float = 0.3

    def model(self) -> PreTrainedModel:
        """A small model in eval mode; a new one each time, or the same: laws leave it as they found it."""
        raise NotImplementedError("a subclass of HostLaws says which model its variants are attached to")

    def tokenizer(self) -> Any:
        """The tokenizer of the model, for variants that begin from a text; left out, the one beside its weights."""
        return None

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if {"law", "variant"} <= set(metafunc.fixturenames):
            loaded = [load_variant(v) for v in self.variants]
            chosen: list[HostLaw] = _chosen(self.laws, "host")
            cases = [(a, v) for v in loaded for a in chosen if a.reason_not(v) is None]
            metafunc.parametrize(("law", "variant"), cases, ids=[f"{a.id}-{v.name}" for a, v in cases])

    def test_law(self, law: HostLaw, variant: Variant) -> None:
        """The law holds for the variant on the model."""
        import pytest

        from ctxpeft.testing.laws.ground import Host
        from ctxpeft.testing.laws.run import run_law

        host = Host(self.model(), variant, self.std, self.tokenizer())
        outcome = run_law(law, host, [law.most])
        if outcome.result == "does not apply":
            pytest.skip(outcome.reason)
        assert outcome.result == "holds", outcome.sentence()
