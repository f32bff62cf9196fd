"""Which column is the text, the label, the prompt, the completion; and what kind of task that makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ctxpeft.errors import DataError, did_you_mean

Kind = Literal["classification", "completion", "language_modelling", "multiple_choice"]
Role = Literal["text", "label", "prompt", "completion", "choices", "answer"]

ROLES_OF: Mapping[Kind, tuple[Role, ...]] = {
    "classification": ("text", "label"),
    "completion": ("prompt", "completion"),
    "language_modelling": ("text",),
    "multiple_choice": ("prompt", "choices", "answer"),
}
TARGETS: Mapping[Kind, Role] = {
    "classification": "label",
    "completion": "completion",
    "multiple_choice": "answer",
}
_ALIASES: Mapping[Role, tuple[str, ...]] = {
    "text": ("sentence", "question", "utterance", "query", "content", "document", "review", "input"),
    "label": ("category", "class", "intent", "sentiment", "target", "label_text", "tag", "topic"),
    "prompt": ("instruction", "source", "input", "question", "question_stem", "meaning_representation"),
    "completion": (
        "response",
        "output",
        "target",
        "answer",
        "chosen",
        "summary",
        "references",
        "refs",
        "answers",
    ),
    "choices": ("options", "endings"),
    "answer": ("answerKey", "answer_key", "gold", "correct", "label"),
}


def infer_kind(columns: Sequence[str], chosen: Mapping[Role, str | None], file: str) -> Kind:
    """The kind whose columns are all present: exact names first, then recognised ones, then text alone.

    Raises:
        DataError: no kind fits.
    """
    if chosen.get("choices"):
        return "multiple_choice"
    if chosen.get("label"):
        return "classification"
    if chosen.get("completion"):
        return "completion"
    pairs: tuple[Kind, ...] = ("multiple_choice", "classification", "completion")
    for exact in (True, False):
        for kind in pairs:
            if all(chosen.get(role) or _find(role, columns, exact) for role in ROLES_OF[kind]):
                return kind
    if chosen.get("text") or _find("text", columns, exact=True):
        return "language_modelling"
    near = _near("text", columns) if "text" not in columns else _near("label", columns)
    raise DataError(
        f"{file}: found the columns {', '.join(columns)}, expected text and label, prompt and completion, or "
        f"text; name yours with columns.text=... and columns.label=..., or in template=...{near}"
    )


def resolve_columns(
    kind: Kind, columns: Sequence[str], chosen: Mapping[Role, str | None], file: str
) -> tuple[dict[Role, str], list[str]]:
    """The column of every role of `kind`, and a note for each that was recognised rather than named.

    Raises:
        DataError: a column is missing; the nearest name is given.
    """
    found: dict[Role, str] = {}
    notes: list[str] = []
    for role in ROLES_OF[kind]:
        wanted = chosen.get(role)
        if wanted:
            if wanted not in columns:
                raise DataError(f"{file}: no column '{wanted}'{did_you_mean(wanted, columns)}")
            found[role] = wanted
            continue
        taken = [c for c in columns if c not in found.values()]
        column = _find(role, taken, exact=False)
        if column is None:
            raise DataError(
                f"{file}: no column '{role}' among {', '.join(columns)}{_near(role, taken)}; "
                f"name it with columns.{role}=..."
            )
        if column != role:
            notes.append(f"{file}: the column '{column}' is used as {role}")
        found[role] = column
    return found, notes


def _near(role: str, columns: Sequence[str]) -> str:
    hint = did_you_mean(role, columns)
    return hint if "mean" in hint else ""


def _find(role: Role, columns: Sequence[str], exact: bool) -> str | None:
    folded = {c.strip().casefold(): c for c in reversed(columns)}
    names = (role,) if exact else (role, *_ALIASES[role])
    return next((folded[name] for name in names if name in folded), None)
