"""The labels of a classification: which there are, and whether they make sense."""

from __future__ import annotations

from collections.abc import Mapping

from ctxpeft.errors import DataError, did_you_mean
from ctxpeft.tasks._spec import TaskSpec
from ctxpeft.tasks._view import Examples

_MAX_LABELS = 1000


def check_labels(spec: TaskSpec, splits: Mapping[str, Examples]) -> tuple[str, ...]:
    """The sorted labels of the training data (of the test data where there is no training data).

    Raises:
        DataError: one label only; a label of held-out data that training never shows; a label for nearly
            every row; `label_words` for a label that does not exist, or the same words for two labels.
    """
    source = splits["train"] or splits["test"]
    labels = tuple(sorted(spec.labels or spec.label_names or source.distinct_targets()))
    known, where = set(labels), source[0].file
    if len(labels) == 1 and splits["train"]:
        raise DataError(f"{where}: every row has the label '{labels[0]}': a classification needs two or more")
    if len(labels) > _MAX_LABELS or (len(source) >= 20 and len(labels) > 0.8 * len(source)):
        raise DataError(
            f"{where}: {len(labels)} different labels in {len(source)} rows: this is no classification; "
            "name the label column with columns.label=..., or use kind=completion"
        )
    for name, examples in splits.items():
        for target, index in examples.distinct_targets().items():
            if target not in known:
                example = examples[index]
                listed = spec.labels or spec.label_names
                reason = "is not among the task's labels" if listed else "does not occur in training"
                raise DataError(
                    f"{example.where}: the label '{example.target}' of the {name} data "
                    f"{reason}{did_you_mean(example.target, labels)}"
                )
    unknown = [label for label in spec.label_words if label not in labels]
    if unknown:
        raise DataError(f"label_words: no label '{unknown[0]}' in {where}{did_you_mean(unknown[0], labels)}")
    words = [spec.label_words.get(label, label) for label in labels]
    twice = next((w for w in words if words.count(w) > 1), None)
    if twice is not None:
        raise DataError(f"label_words: two labels are both written '{twice}'")
    return labels
