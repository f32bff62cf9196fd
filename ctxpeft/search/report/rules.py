"""What the trials say of the construction guide: designs that keep a rule against designs that break it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from ctxpeft.analysis.groups import difference
from ctxpeft.analysis.statistics import Interval
from ctxpeft.search.outcome import Row
from ctxpeft.search.report.choices import trained
from ctxpeft.spec.guide import RULES, Facts, Rule, advice
from ctxpeft.spec.load import load_variant

Verdict = Literal["confirmed", "contradicted", "open", "other choices differ too", "not tested"]


@dataclass(frozen=True)
class Evidence:
    """One rule with the rung's objective (smaller is better) of the designs that keep it and of those that break it.

    effect: keeping minus breaking, among designs of the same templates; over all designs where too few share theirs.
    within: whether it is the former.
    """

    rule: Rule
    kept: list[float]
    broken: list[float]
    effect: Interval | None = None
    within: bool = False

    @property
    def verdict(self) -> Verdict:
        """`confirmed` or `contradicted` where the interval of the effect within templates leaves zero out."""
        if not self.kept or not self.broken:
            return "not tested"
        if not self.within:
            return "other choices differ too"
        if self.effect is None or not self.effect.significant:
            return "open"
        return "confirmed" if self.effect.high < 0 else "contradicted"

    @property
    def means(self) -> tuple[float | None, float | None]:
        """Mean of either side, None for an empty one."""
        return (fmean(self.kept) if self.kept else None, fmean(self.broken) if self.broken else None)


def facts_of(about: dict[str, Any]) -> Facts:
    """What the study knew of model and data; a study of an earlier version knew less."""
    scale = about.get("query_scale")
    low_high = None if scale is None else (float(scale[0]), float(scale[1]))
    return Facts(about.get("input_tokens"), about.get("train_examples"), about.get("gqa"), low_high)


def rules_of(rows: Sequence[Row], about: dict[str, Any]) -> list[Evidence]:
    """Every rule of the guide, those with designs on both sides first."""
    designs = trained(rows)
    facts = facts_of(about)
    broken = [{a.rule.id for a in advice(load_variant(row.variant), facts)} for row in designs]
    scores = [row.rung for row in designs if row.rung is not None]
    templates = [row.templates for row in designs]
    found = []
    for rule in RULES:
        keeps = [rule.id not in ids for ids in broken]
        sides = [[s for s, k in zip(scores, keeps, strict=True) if k is side] for side in (True, False)]
        within = difference(scores, keeps, templates)
        found.append(
            Evidence(rule, sides[0], sides[1], within or difference(scores, keeps), within is not None)
        )
    return sorted(found, key=lambda t: (t.verdict == "not tested", not t.within))
