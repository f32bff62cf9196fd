"""The labels as a token trie: which forward predicts which token of which label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctxpeft.tasks._encode import Ids


@dataclass(frozen=True)
class Step:
    """One token of one label, predicted after the first `depth` tokens of `paths[path]` (0: the prompt)."""

    path: int
    depth: int
    token: int


@dataclass(frozen=True)
class LabelTrie:
    """The token sequences that must be run (`paths`, longest first) so that every token of every label is predicted.

    One token a label needs no path. `steps[i]` are the tokens of label i. A label whose tokens begin another
    label's ends with the end-of-text token, so that the labels are disjoint events.
    """

    labels: tuple[str, ...]
    paths: tuple[Ids, ...]
    steps: tuple[tuple[Step, ...], ...]


def label_trie(label_ids: Mapping[str, Ids], eos: Ids = ()) -> LabelTrie:
    """Build the trie of `label_ids`; `eos` is the end-of-text token, or empty.

    Raises:
        ValueError: a label begins another and there is no end-of-text token.
    """
    labels = tuple(label_ids)
    scored = [disjoint(label_ids[label], list(label_ids.values()), eos) for label in labels]
    contexts = sorted({ids[:k] for ids in scored for k in range(1, len(ids))}, key=lambda c: (-len(c), c))
    paths: list[Ids] = []
    for context in contexts:
        if not any(path[: len(context)] == context for path in paths):
            paths.append(context)

    def step(ids: Ids, k: int) -> Step:
        owner = next((i for i, path in enumerate(paths) if path[:k] == ids[:k]), 0)
        return Step(owner, k, ids[k])

    steps = tuple(tuple(step(ids, k) for k in range(len(ids))) for ids in scored)
    return LabelTrie(labels, tuple(paths), steps)


def disjoint(ids: Ids, others: Sequence[Ids], eos: Ids) -> Ids:
    """`ids`, with the end-of-text token if another label begins with them."""
    if any(other != ids and other[: len(ids)] == ids for other in others):
        if not eos:
            raise ValueError("a label begins another label, and the tokenizer has no end-of-text token")
        return ids + eos
    return ids
