"""Metrics of generated text against one or several references; BLEU, chrF and ROUGE-L by the libraries the field uses.

All are between 0 and 1. BLEU and chrF are of the corpus, as sacrebleu computes them from untokenised text; ROUGE-L
(F1), token F1 and exact match are means over examples, each against its best reference.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ctxpeft.extras import require
from ctxpeft.tasks._spec import TextMetric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def require_metrics(metrics: Sequence[TextMetric]) -> None:
    """Raises CtxpeftError where a library is missing, with the extra that brings it."""
    if {"bleu", "chrf"} & set(metrics):
        require("sacrebleu", "text", "BLEU and chrF")
    if "rouge_l" in metrics:
        require("rouge_score", "text", "ROUGE-L")


def per_example(metric: TextMetric, written: str, references: Sequence[str]) -> float:
    """A metric that is a mean over examples, on one of them: against the reference that suits it best."""
    return max(PER_EXAMPLE[metric](written, reference) for reference in references)


def of_corpus(metric: TextMetric, written: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """A metric on all examples, each with its own references."""
    if metric in PER_EXAMPLE:
        values = [per_example(metric, text, texts) for text, texts in zip(written, references, strict=True)]
        return sum(values) / len(values)
    import sacrebleu

    most = max(map(len, references))
    streams = [[refs[k] if k < len(refs) else None for refs in references] for k in range(most)]
    score: Any = sacrebleu.corpus_bleu if metric == "bleu" else sacrebleu.corpus_chrf
    return float(score(list(written), streams).score) / 100


def rouge_l(written: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin, 2004), lower case, without stemming."""
    return float(_scorer().score(reference, written)["rougeL"].fmeasure)


def f1(written: str, reference: str) -> float:
    """F1 of the bags of words, without case, punctuation and articles (Rajpurkar et al., 2016)."""
    ours, theirs = Counter(_words(written)), Counter(_words(reference))
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total())


def exact_match(written: str, reference: str) -> float:
    """1 where the texts are equal but for white space."""
    return float(written.split() == reference.split())


PER_EXAMPLE: dict[str, Callable[[str, str], float]] = {
    "rouge_l": rouge_l,
    "f1": f1,
    "exact_match": exact_match,
}


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
