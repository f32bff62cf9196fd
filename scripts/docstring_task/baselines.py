"""How hard the task is: the largest class, a rule that looks for label words, and words with a linear classifier."""

from __future__ import annotations

import itertools
from collections import Counter

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from scripts.docstring_task.rows import Row
from scripts.stdlib_text.shingles import words

STRENGTHS = (0.3, 1.0, 3.0, 10.0)
LONGEST_NGRAMS = (1, 2)


def _accuracy(predicted: list[str], rows: list[Row]) -> float:
    hits = sum(guess == row.label for guess, row in zip(predicted, rows, strict=True))
    return round(hits / len(rows), 4)


def label_word(row: Row, labels: set[str], otherwise: str) -> str:
    """The first word of the text that is itself a label, else `otherwise`."""
    return next((word for word in words(row.text) if word in labels), otherwise)


def measure(splits: dict[str, list[Row]]) -> dict[str, dict[str, float]]:
    """Accuracy on test and ood by baseline; the classifier's settings are chosen on validation."""
    train, validation = splits["train"], splits["validation"]
    labels = {row.label for row in train}
    majority = Counter(row.label for row in train).most_common(1)[0][0]
    models = []
    for longest, strength in itertools.product(LONGEST_NGRAMS, STRENGTHS):
        model = make_pipeline(
            TfidfVectorizer(sublinear_tf=True, ngram_range=(1, longest), min_df=2),
            LogisticRegression(C=strength, max_iter=1000, class_weight="balanced"),
        )
        model.fit([row.text for row in train], [row.label for row in train])
        models.append((_accuracy(list(model.predict([row.text for row in validation])), validation), model))
    best = max(models, key=lambda pair: pair[0])[1]
    result: dict[str, dict[str, float]] = {}
    for name in ("test", "ood"):
        rows = splits[name]
        largest = Counter(row.label for row in rows).most_common(1)[0][1]
        result[name] = {
            "largest_class": round(largest / len(rows), 4),
            "label_word": _accuracy([label_word(row, labels, majority) for row in rows], rows),
            "tfidf_logistic_regression": _accuracy(list(best.predict([row.text for row in rows])), rows),
        }
    return result
