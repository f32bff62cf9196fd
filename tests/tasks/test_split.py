"""Packed examples and their splits, against lists and loops."""

from __future__ import annotations

import pickle
import random
from collections import defaultdict
from collections.abc import Sequence

import pytest

from ctxpeft.tasks import Example
from ctxpeft.tasks import _spool as spool
from ctxpeft.tasks._split import _rank, hold_out, some_prompts, subsample, without
from ctxpeft.tasks._spool import Spool
from ctxpeft.tasks._store import Store
from ctxpeft.tasks._view import Examples


def drawn(seed: int, count: int, texts: int, classes: int) -> list[Example]:
    """Examples, some of which share a text that differs by case and spacing only."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        text = f"{chance.choice(['The ', 'the  '])}text {chance.randrange(texts)}"
        found.append(
            Example(("text",), (text,), f"class {chance.randrange(classes)}", "f.csv", "line", number)
        )
    return found


def naive_without(examples: Sequence[Example], others: Sequence[Example]) -> list[Example]:
    taken = {example.digest for example in others}
    return [example for example in examples if example.digest not in taken]


def naive_hold_out(
    examples: Sequence[Example], fraction: float, salt: str
) -> tuple[list[Example], list[Example]]:
    first_class: dict[bytes, str] = {}
    for example in examples:
        first_class.setdefault(example.digest, example.target)
    groups: dict[str, list[bytes]] = defaultdict(list)
    for digest, target in first_class.items():
        groups[target].append(digest)
    strata = list(groups.values()) if len(groups) * 4 <= len(first_class) else [list(first_class)]
    held: set[bytes] = set()
    for digests in strata:
        count = min(max(round(fraction * len(digests)), 1), len(digests) - 1)
        held |= set(sorted(digests, key=lambda digest: _rank(digest, salt))[:count])
    kept = [example for example in examples if example.digest not in held]
    return kept, [example for example in examples if example.digest in held]


def naive_some_prompts(examples: Sequence[Example], limit: int) -> list[Example]:
    texts = sorted({example.digest for example in examples}, key=lambda digest: _rank(digest, "draw0"))
    return [example for example in examples if example.digest in texts[:limit]]


def naive_subsample(
    examples: Sequence[Example], limit: int | None, per_class: int | None, draw: int
) -> list[Example]:
    ranked = sorted(range(len(examples)), key=lambda i: (_rank(examples[i].digest, f"draw{draw}"), i))
    if per_class is not None:
        classes: dict[str, list[int]] = defaultdict(list)
        for i in ranked:
            classes[examples[i].target].append(i)
        kept = {i for members in classes.values() for i in members[:per_class]}
        ranked = [i for i in ranked if i in kept]
    return [examples[i] for i in sorted(ranked[:limit])]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "texts", "classes"), [(0, 1, 1), (1, 1, 1), (40, 12, 3), (60, 400, 30)])
def test_splits_are_those_of_the_loops(seed: int, count: int, texts: int, classes: int) -> None:
    examples, others = drawn(seed, count, texts, classes), drawn(seed + 100, 5, texts, classes)
    assert without(examples, others)[0] == naive_without(examples, others)
    for fraction in (0.1, 0.5):
        assert hold_out(examples, fraction, "test") == naive_hold_out(examples, fraction, "test")
    for limit in (0, 3, 1000):
        assert some_prompts(examples, limit) == naive_some_prompts(examples, limit)
        for per_class in (None, 0, 2):
            found = subsample(examples, limit, per_class, draw=7)
            assert found == naive_subsample(examples, limit, per_class, 7)


def odd() -> list[Example]:
    """Everything that a reader may make of a row."""
    return [
        Example(("text",), ("plain",), "a", "f.csv", "line", 2),
        Example(("text", "title"), ("\x00 in \U0001f600 it", ""), "ü", "g.json", "item", 2**33, (), True),
        Example(("prompt",), ("which?",), "two", "h.jsonl", "line", 1, ("one", "two", "")),
        Example(("prompt",), ("",), "", "h.jsonl", "line", 2),
    ]


def test_an_example_comes_back_as_it_was_added() -> None:
    packed = Examples.of(odd())
    assert list(packed) == odd()
    assert [packed.digest(i) for i in range(4)] == [example.digest for example in odd()]
    assert [example.id for example in packed[1:]] == [example.id for example in odd()[1:]]
    assert packed[-1] == odd()[-1]
    assert packed != odd()[:3]
    assert packed != odd()[::-1]
    assert pickle.loads(pickle.dumps(packed)) == odd()
    assert packed.chosen(packed.unseen()) == odd()[1:2]
    assert packed.distinct_targets() == {"a": 0, "ü": 1, "two": 2, "": 3}
    assert Examples.joined([packed[2:], packed[:1]]) == [*odd()[2:], odd()[0]]
    assert Examples.joined([packed[2:], Examples.of(odd()[:1])]) == [*odd()[2:], odd()[0]]


def test_half_a_character_is_not_added() -> None:
    store = Store()
    for example in (Example(("text",), ("\ud800",), "a"), Example(("text",), ("a",), "\udfff")):
        with pytest.raises(UnicodeEncodeError):
            store.add(example)
    assert list(Examples(store)) == []
    store.add(odd()[0])
    assert list(Examples(store)) == odd()[:1]


@pytest.mark.parametrize("room", [True, False])
def test_many_texts_go_to_a_file_or_stay_where_there_is_no_room(
    room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_BUFFER", 100)

    def full(*_: object, **__: object) -> object:
        raise OSError(28, "No space left on device")

    if not room:
        monkeypatch.setattr(spool.tempfile, "TemporaryFile", full)
    store = Store()
    store._texts = Spool(in_memory=1000)
    examples = drawn(0, 300, 300, 3)
    for example in examples:
        store.add(example)
    assert list(Examples(store)) == examples
    assert (store._texts._start > 9_000) == room
    assert (len(store._texts._tail) < 1000) == room
