"""Metrics of generated text against their definitions."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctxpeft.errors import CtxpeftError
from ctxpeft.extras import require
from ctxpeft.tasks import Encoder, TaskData, build_task, evaluate, load_task
from ctxpeft.tasks._generate import written_texts
from ctxpeft.tasks._text_metrics import PER_EXAMPLE, of_corpus, per_example
from tests.tasks.tiny import write_jsonl

pytest.importorskip("sacrebleu", reason="needs sacrebleu: pip install 'ctxpeft[text]' -c constraints.txt")
pytest.importorskip("rouge_score", reason="needs rouge-score: pip install 'ctxpeft[text]' -c constraints.txt")

WORDS = ["the", "red", "fox", "saw", "two", "old", "plums", "near", "a", "river"]


def _sentences(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(4, 12))) for _ in range(count)]


def _lcs(a: Sequence[str], b: Sequence[str]) -> int:
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + _lcs(a[:-1], b[:-1])
    return max(_lcs(a[:-1], b), _lcs(a, b[:-1]))


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence() -> None:
    for written, reference in zip(_sentences(15, 1), _sentences(15, 2), strict=True):
        ours, theirs = written.split()[:8], reference.split()[:8]
        common = _lcs(ours, theirs)
        expected = 0.0 if not common else 2 * common / (len(ours) + len(theirs))
        assert PER_EXAMPLE["rouge_l"](" ".join(ours), " ".join(theirs)) == pytest.approx(expected)


def _bleu(written: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Papineni et al. (2002): clipped n-gram precisions to order 4, brevity to the nearest reference length."""
    ours, best = 0, 0
    logs = 0.0
    for n in range(1, 5):
        hits, total = 0, 0
        for text, refs in zip(written, references, strict=True):
            grams = _grams(text.split(), n)
            limit: Counter[Any] = Counter()
            for ref in refs:
                limit |= _grams(ref.split(), n)
            hits += (grams & limit).total()
            total += grams.total()
        logs += math.log(hits / total) / 4
    for text, refs in zip(written, references, strict=True):
        length = len(text.split())
        ours += length
        best += min((abs(len(r.split()) - length), len(r.split())) for r in refs)[1]
    return math.exp(logs + min(0.0, 1 - best / ours))


def _grams(tokens: Sequence[str], n: int) -> Counter[Any]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def test_bleu_is_of_the_corpus_and_takes_any_number_of_references() -> None:
    references = [
        [a, b] if i % 3 else [a]
        for i, (a, b) in enumerate(zip(_sentences(40, 3), _sentences(40, 4), strict=True))
    ]
    written = [refs[0] if i % 4 else f"{refs[0]} near" for i, refs in enumerate(references)]
    written[1] = " ".join(reversed(written[1].split()))
    assert of_corpus("bleu", written, references) == pytest.approx(_bleu(written, references), rel=1e-9)
    assert of_corpus("bleu", [r[0] for r in references], references) == pytest.approx(1.0)


def _chrf(written: Sequence[str], references: Sequence[str]) -> float:
    """Popovic (2015): F2 of character n-grams to order 6, precision and recall averaged over the orders."""
    scores = []
    for n in range(1, 7):
        hits = ours = theirs = 0
        for text, ref in zip(written, references, strict=True):
            a, b = (_grams(list("".join(t.split())), n) for t in (text, ref))
            hits, ours, theirs = hits + (a & b).total(), ours + a.total(), theirs + b.total()
        scores.append((hits / ours, hits / theirs))
    precision, recall = (sum(s[k] for s in scores) / 6 for k in (0, 1))
    return 5 * precision * recall / (4 * precision + recall)


def test_chrf_is_of_character_n_grams() -> None:
    written, references = _sentences(30, 5), _sentences(30, 6)
    found = of_corpus("chrf", written, [[r] for r in references])
    assert found == pytest.approx(_chrf(written, references), rel=1e-9)


def test_f1_and_exact_match_take_the_best_reference() -> None:
    assert per_example("f1", "The red fox.", ["a fox", "two plums"]) == pytest.approx(2 * 1 / (2 + 1))
    assert per_example("f1", "the", ["a"]) == 1.0
    assert per_example("f1", "fox", ["a"]) == 0.0
    assert per_example("exact_match", "two  plums\n", ["fox", "two plums"]) == 1.0
    assert of_corpus("exact_match", ["fox", "plum"], [["fox"], ["fox", "fig"]]) == 0.5


def test_a_missing_library_is_told() -> None:
    with pytest.raises(CtxpeftError, match=r"BLEU and chrF needs nothing_like_it; .*ctxpeft\[text\]"):
        require("nothing_like_it", "text", "BLEU and chrF")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    rows = [
        {"prompt": f"we saw {i}", "refs": [f"the fox {i}", f"an otter {i}", f"the fox {i}"][: 1 + i % 3]}
        for i in range(16)
    ]
    file = write_jsonl(tmp_path_factory.mktemp("text") / "d.jsonl", rows)  # type: ignore[arg-type]
    spec = {"kind": "completion", "test": [str(file)], "metrics": ["bleu", "rouge_l", "chrf"], "stop": "\n"}
    return build_task(load_task({**spec, "new_tokens": 12, "generate_limit": 9}))


def test_references_of_one_prompt_are_judged_together(tiny_model: Path, data: TaskData) -> None:
    assert len(data.test) == 1 * 6 + 2 * 10
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    encoder = Encoder(AutoTokenizer.from_pretrained(tiny_model), data)
    found = evaluate(model, encoder, data.test)
    assert (found.primary, found.greater_is_better, found.generated) == ("rouge_l", True, 9)
    assert set(found.metrics) == {"bleu", "rouge_l", "chrf", "token_loss", "perplexity", "bits_per_byte"}
    assert found.value == pytest.approx(sum(r.value for r in found.records) / 9)
    keys = {e.key[:16]: e for e in data.test}
    for record in found.records:
        refs = [e.target for e in data.test if e.key == keys[record.id].key]
        assert record.target == " ||| ".join(refs)
        assert record.predicted is not None
        assert record.value == max(PER_EXAMPLE["rouge_l"](record.predicted, ref) for ref in refs)
    without = evaluate(model, encoder, data.test, generate=0)
    assert (without.primary, len(without.records)) == ("token_loss", len(data.test))
    assert without.metrics["token_loss"] == pytest.approx(found.metrics["token_loss"])


def test_text_ends_at_the_stop_and_training_says_so(tiny_model: Path, data: TaskData) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    encoder = Encoder(tokenizer, data, ends=False)
    encoded = encoder.encode(data.test[:6])
    assert all(tokenizer.decode(e.answer).endswith("\n") for e in encoded)
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    other = tokenizer(" fox", add_special_tokens=False)["input_ids"][0]
    plan = [other, other, newline, other, other]

    def forced(batch: int, ids: Any) -> list[int]:
        return [plan[len(ids) % len(plan)]]

    longest = max(len(e.prompt) for e in encoded)
    same = [e for e in encoded if len(e.prompt) == longest]
    texts = _forced_texts(model, encoder, same, forced)
    start = longest % len(plan)
    order = [plan[(start + k) % len(plan)] for k in range(12)]
    assert texts == [tokenizer.decode(order[: order.index(newline)]).strip()] * len(same)


def _forced_texts(model: Any, encoder: Encoder, encoded: Sequence[Any], forced: Any) -> list[str]:
    generate = model.generate
    model.generate = lambda **options: generate(**options, prefix_allowed_tokens_fn=forced)
    try:
        return written_texts(model, encoder, encoded)
    finally:
        model.generate = generate


def test_greedy_text_is_what_one_pass_a_token_gives(tiny_model: Path, data: TaskData) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    encoder = Encoder(tokenizer, data)
    encoded = encoder.encode(data.test[:5])
    for text, e in zip(written_texts(model, encoder, encoded), encoded, strict=True):
        ids = list(e.prompt)
        with torch.no_grad():
            for _ in range(12):
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] == tokenizer.eos_token_id or "\n" in tokenizer.decode(ids[len(e.prompt) :]):
                    break
        naive = tokenizer.decode(ids[len(e.prompt) :], skip_special_tokens=True)
        assert text == naive.lstrip().partition("\n")[0].strip()
