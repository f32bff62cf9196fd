"""Run one law on one ground, sizes in ascending order, and say how it went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ctxpeft.errors import CtxpeftError, LawError
from ctxpeft.hosts.positions import OutOfPositionsError
from ctxpeft.testing.laws.evidence import Evidence
from ctxpeft.testing.laws.ground import DoesNotApply, Host
from ctxpeft.testing.laws.law import HostLaw, Law, SpecLaw
from ctxpeft.testing.laws.size import Size, ascending

Result = Literal["holds", "violated", "does not apply"]
WIDEN = 8.0
HOPELESS = 100.0


@dataclass(frozen=True)
class Outcome:
    """How a law went: the largest error against what was allowed there (None where nothing is measured), seconds, and
    the reason: the first size that fails and how, or why the law does not apply."""

    law: Law
    result: Result
    reason: str = ""
    error: float | None = None
    allowed: float | None = None
    seconds: float = 0.0

    def sentence(self) -> str:
        """The law and what became of it, in one sentence."""
        return f"law {self.law.id} is {self.result}: {self.reason}" if self.reason else self.law.id


def run_laws(laws: Sequence[Law], host: Host) -> Iterator[Outcome]:
    """Run spec and host laws that concern a variant on a model, one after another."""
    for law in laws:
        if isinstance(law, SpecLaw):
            yield _timed(law, lambda law=law: _run_spec(law, host))
        elif isinstance(law, HostLaw):
            yield run_law(law, host)


def run_law(law: HostLaw, host: Host, sizes: Sequence[Size] | None = None) -> Outcome:
    """Run a host law at `sizes`, by default from the smallest to the largest it is stated for.

    A law that can be asked of the bare model is asked of it too where it fails: rounding that the model shows by
    itself is allowed for, and a model that breaks the law by itself is told apart from a variant that does.
    """
    reason = law.reason_not(host.variant)
    if reason is not None:
        return Outcome(law, "does not apply", reason)
    return _timed(law, lambda: _run_host(law, host, sizes or ascending(law.least, law.most)))


def _timed(law: Law, run: Any) -> Outcome:
    start = time.perf_counter()
    outcome: Outcome = run()
    return replace(outcome, seconds=time.perf_counter() - start)


def _run_spec(law: SpecLaw, host: Host) -> Outcome:
    try:
        law.holds(host.variant)
    except (LawError, AssertionError) as error:
        return Outcome(law, "violated", _told(error))
    return Outcome(law, "holds")


def _run_host(law: HostLaw, host: Host, sizes: Sequence[Size]) -> Outcome:
    widest: Evidence | None = None
    for size in sizes:
        host.evidence = evidence = Evidence(scaled=host.scaled)
        try:
            law.holds(host, size)
        except (DoesNotApply, OutOfPositionsError) as why:
            return Outcome(law, "does not apply", str(why))
        except Exception as error:  # a broken block may fail in any way, and that is a finding
            outcome = _failed(law, host, size, evidence, error)
            if outcome.result != "holds":
                return outcome
            evidence.error, evidence.allowed = outcome.error or 0.0, outcome.allowed or 0.0
        if evidence.compared and (widest is None or evidence.worst > widest.worst):
            widest = evidence
    if widest is None:
        return Outcome(law, "holds")
    return Outcome(law, "holds", error=widest.error, allowed=widest.allowed)


def _failed(law: HostLaw, host: Host, size: Size, evidence: Evidence, error: Exception) -> Outcome:
    violated = Outcome(law, "violated", f"{size}: {_told(error)}", evidence.error, evidence.allowed)
    if not law.base:
        return violated
    by_itself = _alone(law, host, size)
    if isinstance(by_itself, str):
        return Outcome(law, "does not apply", f"the model breaks it without the variant, {size}: {by_itself}")
    if not isinstance(error, LawError) or by_itself == 0.0:
        return violated
    host.evidence = wider = Evidence(floor=WIDEN * by_itself, scaled=host.scaled)
    try:
        law.holds(host, size)
    except Exception as again:
        return replace(violated, reason=f"{size}: {_told(again)}", error=wider.error, allowed=wider.allowed)
    return Outcome(law, "holds", error=wider.error, allowed=wider.allowed)


def _alone(law: HostLaw, host: Host, size: Size) -> float | str:
    """The error of the bare model, or how it breaks the law."""
    host.evidence = evidence = Evidence(scaled=host.scaled, strict=False)
    host.bare = True
    try:
        law.holds(host, size)
    except Exception as error:
        return _told(error)
    finally:
        host.bare = False
    if evidence.worst > HOPELESS:
        return f"|Δ| = {evidence.error:.2g}"
    return evidence.error


def _told(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, CtxpeftError):
        return text
    if isinstance(error, AssertionError):
        return text.removeprefix("assert ") or "an assertion of the law fails"
    return f"{type(error).__name__}: {text}"
