"""The sentences of a report: the answer, and how far the rung can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from ctxpeft.analysis.table import p_value
from ctxpeft.search.fidelity import fidelity, in_words
from ctxpeft.search.finals import Final, Finals, Versus
from ctxpeft.search.measures import TITLE
from ctxpeft.search.outcome import Row, ranking
from ctxpeft.search.report.importance import FEWEST, Importance
from ctxpeft.search.report.rules import Evidence
from ctxpeft.search.score import natural, shown
from ctxpeft.search.shut import in_words as shut_in_words
from ctxpeft.search.shut import shut_out


def answer(rows: Sequence[Row], finals: Finals | None, about: dict[str, Any]) -> list[str]:
    """What was found, in a few sentences."""
    against = [_against(versus, len(finals.versus)) for versus in finals.versus] if finals else []
    return [headline(rows, finals, about), *against, *remarks(rows, finals, about)]


def headline(rows: Sequence[Row], finals: Finals | None, about: dict[str, Any]) -> str:
    """The best design and its score."""
    objective = str(about["objective"])
    designs = ranking(rows, anchors=False)
    if not designs:
        return "No design beyond the anchors was trained to the end, so there is no answer yet."
    if finals is None:
        best = designs[0]
        assert best.value is not None
        return f"Best design so far: trial {best.number}, {shown(best.value, objective)}."
    return _winner(_found(finals), finals, objective)


def tally(finals: Finals) -> str:
    """How the winner stands against the anchors, in one sentence."""
    named: dict[str, list[str]] = {"better": [], "not significant": [], "worse": []}
    for versus in finals.versus:
        named[versus.verdict].append(versus.anchor)
    said = {"better": "significantly better than", "worse": "significantly worse than"}
    parts = [
        f"{said.get(verdict, 'not distinguishable from')} {_and(anchors)}"
        for verdict, anchors in named.items()
        if anchors
    ]
    return f"It is {', '.join(parts)}." if parts else ""


def remarks(rows: Sequence[Row], finals: Finals | None, about: dict[str, Any]) -> list[str]:
    """What the reader must know beside the answer, choices that the budget shut out last."""
    return [*_beside(rows, finals, about), *shut_in_words(shut_out(rows))]


def _beside(rows: Sequence[Row], finals: Finals | None, about: dict[str, Any]) -> list[str]:
    """How far the answer holds."""
    objective = str(about["objective"])
    designs = ranking(rows, anchors=False)
    if not designs:
        return []
    if finals is None:
        best = designs[0]
        assert best.value is not None
        return [
            *_ahead([(r.anchor, r.value) for r in ranking(rows) if r.anchor], best.value, objective),
            "It was chosen as the best of many on one seed, so the number flatters it; no fresh seeds were run.",
        ]
    winner = _found(finals)
    sentences = _ahead([(m.name, m.mean) for m in finals.methods if m.anchor], winner.mean, objective)
    sentences.append(_curse(winner, objective))
    sentences += _wanted(winner, finals, about)
    if finals.left_out:
        sentences.append(f"Left out because a fresh run diverged: {', '.join(finals.left_out)}.")
    if finals.split == "validation":
        sentences.append(
            "No test data were given: the comparison is on the validation data that chose the winner, and flatters it."
        )
    return sentences


def _wanted(winner: Final, finals: Finals, about: dict[str, Any]) -> list[str]:
    """What else the search wants, on the fresh seeds, the winner's and the anchors'; and the constraints it breaks."""
    names = [name for name in list(winner.objectives)[1:] if len(set(winner.objectives[name])) > 1]
    anchors = [method for method in finals.methods if method.anchor and method.objectives]
    sentences = []
    for name in names:
        theirs = "; ".join(f"{method.name} {_spread(method.objectives[name])}" for method in anchors)
        beside = f"; {theirs}" if theirs else ""
        sentences.append(
            f"{capitalised(TITLE[name])}, mean of the fresh seeds [lowest, highest]: "
            f"{_spread(winner.objectives[name])}{beside}."
        )
    for name in winner.violations:
        bound = about.get("constraints", {}).get(name)
        mean = fmean(winner.objectives[name])
        sentences.append(f"On fresh seeds it breaks a constraint: {TITLE[name]} {mean:.4g}, bound {bound:g}.")
    return sentences


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.4f} [{min(values):.4f}, {max(values):.4f}]"


def capitalised(text: str) -> str:
    """With a capital letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def _found(finals: Finals) -> Final:
    return next(m for m in finals.methods if m.number == finals.winner)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def interval(versus: Versus) -> str:
    """`+0.012 [-0.004, +0.028]`"""
    i = versus.interval
    return f"{i.mean:+.4f} [{i.low:+.4f}, {i.high:+.4f}]"


def _winner(winner: Final, finals: Finals, objective: str) -> str:
    count = f"{len(winner.validation)} fresh seed{'s' if len(winner.validation) > 1 else ''}"
    text = f"Trial {winner.number} is the best design found: {shown(winner.mean, objective)}, mean of {count}"
    if finals.split == "test" and finals.versus:
        text += f"; on test data, {metric(finals.versus[0].metric)} {fmean(winner.test):.4f}"
    return text + "."


def _ahead(anchors: Sequence[tuple[str, float | None]], value: float, objective: str) -> list[str]:
    """Which anchors the best design does not reach on validation data."""
    better = sorted((v, name) for name, v in anchors if v is not None and v < value)
    if not better:
        return ["On validation data it is ahead of every anchor."] if anchors else []
    named = [f"{name} ({natural(v, objective):.4f})" for v, name in better]
    verb = "is" if len(named) == 1 else "are"
    return [f"On validation data {', '.join(named)} {verb} ahead of it."]


def _against(versus: Versus, comparisons: int) -> str:
    verdict = {
        "better": "it is significantly better",
        "worse": "it is significantly worse",
        "not significant": "the difference is not significant",
    }[versus.verdict]
    p = ""
    if versus.adjusted is not None:
        corrected = f", corrected for {comparisons} comparisons" if comparisons > 1 else ""
        p = f" (p {p_value(versus.adjusted)}{corrected})"
    return f"Against {versus.anchor} ({metric(versus.metric)} {versus.other:.4f}): {interval(versus)}; {verdict}{p}."


def _curse(winner: Final, objective: str) -> str:
    searched, fresh = natural(winner.searched, objective), natural(winner.mean, objective)
    moved = f"{fresh - searched:+.4f}"
    text = f"In the search the same design scored {searched:.4f} on its one seed; fresh seeds moved it by {moved}"
    fell = winner.mean > winner.searched
    return f"{text}: being the best of many had flattered it." if fell else f"{text}."


def metric(name: str) -> str:
    """A metric's name as words."""
    return name.replace("_", " ")


def rung_in_words(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """What the rungs did, and how their order agrees with the final one."""
    shares = about.get("rungs", ())
    more = (
        f", and at {', '.join(f'{share:.0%}' for share in shares[1:])} of the steps"
        if len(shares) > 1
        else ""
    )
    head = (
        f"Every learning rate of a design was trained for {about['rung_steps']} of {about['steps']} steps; the best "
        f"one went on, from the start, if it was among the better {about['keep']:.0%} there{more}."
    )
    found = fidelity(rows, float(about["keep"]))
    said = in_words(found)
    if not said:
        return head
    rank = (
        f" Rank correlation (Spearman) {found.spearman:.2f} over {found.trained} trials."
        if found.spearman
        else ""
    )
    unknown = (
        "" if found.audited else " Pruned designs have no full run, so the error among them is not known."
    )
    return f"{head} {said}{rank}{unknown}"


def importance_in_words(found: Importance | None) -> str:
    """How far the shares can be believed."""
    if found is None:
        return f"Importance is not computed: fewer than {FEWEST} designs were trained, or they are all alike."
    head = f"On designs it has not seen, such a forest explains {found.skill:.0%} of the variance (R² out of bag)"
    if found.skill <= 0:
        return f"{head}: no better than the mean. The shares are noise here; more trials, or random ones, are needed."
    if found.skill < 0.3:
        return f"{head}: little. Read the order of the shares as a hint at best."
    return f"{head}. Questions that always go together share their importance arbitrarily."


def guide_in_words(tested: Sequence[Evidence], guide: bool | None) -> str:
    """What the search did with the construction guide, and what can be learned of it."""
    heads = {
        None: "The study does not say whether the guide was on.",
        True: "The guide was on: what breaks a must or should rule was left out as soon as that could be told.",
        False: "The guide was off: designs that break its rules were drawn like any other.",
    }
    grave = [t for t in tested if t.rule.severity != "consider" and t.broken]
    if grave:
        named = ", ".join(f"{t.rule.id} ({len(t.broken)})" for t in grave)
        return f"{heads[guide]} Trained designs break these nevertheless: {named}." if guide else heads[guide]
    text = "No trained design breaks a must or should rule, so these are not tested here"
    return f"{heads[guide]} {text}{'; search.guide=false tests them.' if guide else '.'}"
