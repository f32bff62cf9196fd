"""A study as one small text file: written beside the report, committed, read back, continued elsewhere."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, TrialState

from ctxpeft.errors import CtxpeftError, SpecError
from ctxpeft.search.fidelity import fidelity
from ctxpeft.search.finals import Finals
from ctxpeft.search.outcome import Row, rows_of

FORMAT = "ctxpeft study 1"
FILE = "study.json"
OWN = ("owner",)  # says which folder runs a trial: nothing elsewhere


@dataclass(frozen=True)
class Archive:
    """Everything of a study: its trials as Optuna keeps them, what it was made for, what it found.

    described: what decides results (see `Laboratory.describe`); a study goes on only where that is the same.
    references: the frozen model's losses, where several tasks are one objective. first_format: read from a
    file of the first format, which a report can show and no search go on with.
    """

    study: str
    described: dict[str, Any]
    about: dict[str, Any]
    trials: list[FrozenTrial]
    finals: Finals | None = None
    references: dict[str, float] | None = None
    first_format: bool = False

    @property
    def rows(self) -> list[Row]:
        """The trials as the search reads them."""
        return rows_of(self.trials)

    def text(self) -> str:
        """The file: one line a trial, every dimension written once."""
        dimensions: dict[str, Any] = {}
        lines = [json.dumps(_plain(trial, dimensions), ensure_ascii=False) for trial in self.trials]
        head = {
            "format": FORMAT,
            "study": self.study,
            "about": self.about,
            "described": self.described,
            "references": self.references,
            "finals": self.finals.plain() if self.finals else None,
            "fidelity": asdict(fidelity(self.rows, float(self.about.get("keep", 0.5)))),
        }
        parts = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
        listed = ",\n".join(
            f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}"
            for name, value in dimensions.items()
        )
        parts.append('"dimensions": {\n' + listed + "\n}")
        parts.append('"trials": [\n' + ",\n".join(lines) + "\n]")
        return "{\n" + ",\n".join(parts) + "\n}\n"


def archive_of(study: optuna.Study) -> Archive:
    """What a study of `ctxpeft search` holds now. Raises CtxpeftError for another study."""
    attributes = study.user_attrs
    if "about" not in attributes:
        raise CtxpeftError(f"study '{study.study_name}' was not made by ctxpeft search")
    finals = attributes.get("finals")
    return Archive(
        study.study_name,
        attributes.get("described", {}),
        _completed(attributes["about"], attributes.get("described", {})),
        sorted(study.get_trials(deepcopy=False), key=lambda t: t.number),
        Finals.from_plain(finals) if finals else None,
        attributes.get("references"),
    )


def read_archive(path: Path) -> Archive:
    """The archive in a file. Raises CtxpeftError where it is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CtxpeftError(f"no study file {path}: expected {FILE} as ctxpeft search writes it") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CtxpeftError(f"{path} cannot be read as a study: {error}") from None
    if _is_old(data):
        return _old(path, data)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else None
        raise CtxpeftError(
            f"{path} is no study that can be continued: expected format '{FORMAT}', found {found!r}"
        )
    try:
        return _parsed(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CtxpeftError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def reread(archive: Archive) -> Archive:
    """The archive as its file would give it back: without owners, and what runs counts as interrupted."""
    return archive if archive.first_format else _parsed(json.loads(archive.text()))


def _parsed(data: dict[str, Any]) -> Archive:
    dimensions = {name: _distribution(value) for name, value in data["dimensions"].items()}
    trials = [_trial(item, dimensions) for item in data["trials"]]
    finals = Finals.from_plain(data["finals"]) if data.get("finals") else None
    return Archive(
        data["study"],
        data["described"],
        _completed(data["about"], data["described"]),
        trials,
        finals,
        data.get("references"),
    )


def _completed(about: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    """What is told of a study; the guide and the rates from its settings, where an older study says them only there."""
    guide = described.get("search", {}).get("guide")
    rates = described.get("space", {}).get("rates")
    found = {"guide": guide, "rates": rates and {"widen": 0, **rates}}
    return {**{key: value for key, value in found.items() if value is not None}, **about}


def _is_old(data: Any) -> bool:
    """Whether a file is of the first format, which had no name: rows of a report, and what was said of them."""
    if not isinstance(data, dict) or "format" in data or not isinstance(data.get("about"), dict):
        return False
    trials = data.get("trials")
    return (
        isinstance(trials, list)
        and bool(trials)
        and all(isinstance(t, dict) and {"number", "outcome"} <= t.keys() for t in trials)
    )


def _old(path: Path, data: dict[str, Any]) -> Archive:
    """A file of the first format, as a report reads it; the finals stood in a file beside it."""
    about, rows = data["about"], data["trials"]
    beside = path.parent / "finals.json"
    try:
        finals = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else None
        trials = [_old_trial(row, rows) for row in rows]
        return Archive(
            str(about.get("study", "")),
            {},
            about,
            trials,
            Finals.from_plain(finals) if finals else None,
            first_format=True,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CtxpeftError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _old_trial(row: dict[str, Any], rows: list[dict[str, Any]]) -> FrozenTrial:
    states = {"completed": TrialState.COMPLETE, "memoised": TrialState.COMPLETE}
    states |= {"pruned": TrialState.PRUNED, "infeasible": TrialState.PRUNED}
    params = row.get("choices", {})
    answers = {
        name: list(dict.fromkeys(r["choices"][name] for r in rows if name in r.get("choices", {})))
        for name in params
    }
    return FrozenTrial(
        number=row["number"],
        state=states.get(row["outcome"], TrialState.FAIL),
        value=row.get("value"),
        datetime_start=None,
        datetime_complete=None,
        params=params,
        distributions={name: CategoricalDistribution(found) for name, found in answers.items()},
        user_attrs={key: value for key, value in row.items() if key not in ("number", "choices")},
        system_attrs={},
        intermediate_values={},
        trial_id=row["number"],
    )


def put_back(study: optuna.Study, archive: Archive) -> None:
    """Add the trials a study does not have yet, in order, so that every number stays what it was.

    What ran when the archive was written counts as interrupted and is tried again.

    Raises SpecError where the study holds other trials; nothing is written then.
    """
    present = study.get_trials(deepcopy=False)
    if any(_identity(a) != _identity(b) for a, b in zip(present, archive.trials, strict=False)):
        raise SpecError(
            f"the study '{study.study_name}' holds trials that are not from that file: take another --out, or "
            "discard it with --fresh"
        )
    if not present:
        study.set_user_attr("described", archive.described)
        study.set_user_attr("references", archive.references)
    for trial in archive.trials[len(present) :]:
        study.add_trial(trial)


def _identity(trial: FrozenTrial) -> tuple[Any, ...]:
    attributes = trial.user_attrs
    return trial.params, attributes.get("anchor"), attributes.get("fingerprint"), attributes.get("value")


def _plain(trial: FrozenTrial, dimensions: dict[str, Any]) -> dict[str, Any]:
    """One trial; distributions go into `dimensions`, and stay here only where another one has the name."""
    own = {}
    for name, distribution in trial.distributions.items():
        value = json.loads(distribution_to_json(distribution))
        if dimensions.setdefault(name, value) != value:
            own[name] = value
    data = {
        "number": trial.number,
        "state": trial.state.name,
        "values": trial.values,
        "params": trial.params,
        "dimensions": own,
        "intermediate": {str(step): value for step, value in trial.intermediate_values.items()},
        "attrs": {key: value for key, value in trial.user_attrs.items() if key not in OWN},
        "system": trial.system_attrs,
        "start": _time(trial.datetime_start),
        "complete": _time(trial.datetime_complete),
    }
    return {key: value for key, value in data.items() if value not in (None, {}, [])}


def _trial(data: dict[str, Any], dimensions: dict[str, BaseDistribution]) -> FrozenTrial:
    own = {name: _distribution(value) for name, value in data.get("dimensions", {}).items()}
    params = data.get("params", {})
    state = TrialState[data["state"]]
    complete = _when(data.get("complete"))
    if state == TrialState.RUNNING:
        state, complete = TrialState.FAIL, _when(data.get("start"))
    trial = FrozenTrial(
        number=data["number"],
        state=state,
        value=None,
        values=data.get("values"),
        datetime_start=_when(data.get("start")),
        datetime_complete=complete,
        params=params,
        distributions={name: own.get(name) or dimensions[name] for name in params},
        user_attrs=data.get("attrs", {}),
        system_attrs=data.get("system", {}),
        intermediate_values={int(step): value for step, value in data.get("intermediate", {}).items()},
        trial_id=data["number"],
    )
    trial._validate()
    return trial


def _distribution(data: dict[str, Any]) -> BaseDistribution:
    return json_to_distribution(json.dumps(data))


def _time(when: datetime | None) -> str | None:
    return when.isoformat(timespec="seconds") if when else None


def _when(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
