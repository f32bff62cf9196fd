"""Training and judging as PEFT's comparison does it, so that the numbers may stand in one table.

Loss on prompt and response, divided by the tokens of the batch; batches in the order of the set, sorted by length
within buckets; AdamW, cosine with a tenth of warm-up; greedy text, judged by its last number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, get_cosine_schedule_with_warmup

from benchmarks.metamath.answers import accuracy
from benchmarks.metamath.data import Row, Sets
from benchmarks.metamath.parameters import WARMUP, Parameters

BUCKET = 20  # batches
WIKI_LENGTH = 768
Ids = list[int]


def encoded(tokenizer: Any, rows: Sequence[Row], parameters: Parameters, with_response: bool) -> list[Ids]:
    """Token ids of the prompts, with the response right behind where asked, cut at `max_seq_length`."""
    texts = [
        parameters.query_template.format(query=row["query"]) + (row["response"] if with_response else "")
        for row in rows
    ]
    found: list[Ids] = (
        [ids[: parameters.max_seq_length] for ids in tokenizer(texts)["input_ids"]] if texts else []
    )
    return found


def batches(ids: Sequence[Ids], size: int) -> Iterator[list[Ids]]:
    """The data once, in order; within buckets of twenty batches the longest first."""
    for start in range(0, len(ids), size * BUCKET):
        bucket = ids[start : start + size * BUCKET]
        order = torch.argsort(torch.tensor([len(row) for row in bucket]), descending=True).tolist()
        for first in range(0, len(bucket), size):
            yield [bucket[i] for i in order[first : first + size]]


def padded(rows: Sequence[Ids], pad: int, left: bool, device: Any) -> tuple[Tensor, Tensor]:
    """Token ids and mask, (B, T)."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place] = torch.tensor(row)
        mask[i, place] = 1
    return ids.to(device), mask.to(device)


def loss_of(model: Any, rows: Sequence[Ids], pad: int, device: Any) -> Tensor:
    """Nats of all tokens but the first, and of one end-of-text token where a row has padding, over the tokens read."""
    ids, mask = padded(rows, pad, left=False, device=device)
    labels = ids.clone()
    for i, row in enumerate(rows):
        labels[i, len(row) + 1 :] = -100
    found: Tensor = model(
        input_ids=ids, attention_mask=mask, labels=labels, num_items_in_batch=mask.sum().item()
    ).loss
    return found


@torch.no_grad()
def written(model: Any, tokenizer: Any, prompts: Sequence[Ids], parameters: Parameters) -> list[str]:
    """Prompt and greedy continuation as text, in the order of the prompts."""
    device = next(model.parameters()).device
    texts: list[str] = []
    for start in range(0, len(prompts), parameters.batch_size_eval):
        ids, mask = padded(
            prompts[start : start + parameters.batch_size_eval], tokenizer.pad_token_id, True, device
        )
        given = {k: v for k, v in parameters.generation_kwargs.items() if v is not None}
        if "max_length" in given and "max_new_tokens" in given:  # the smaller of the two holds
            given["max_length"] = min(given.pop("max_new_tokens") + ids.shape[1], given["max_length"])
        config = GenerationConfig(**{"pad_token_id": tokenizer.pad_token_id, **given})
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        texts += tokenizer.batch_decode(output, skip_special_tokens=True)
    return texts


@torch.no_grad()
def text_loss(model: Any, tokenizer: Any, texts: Sequence[str], size: int) -> float:
    """Mean nats a token of the texts, each cut at 768 tokens, in the type of the model's logits."""
    device = next(model.parameters()).device
    losses: list[Tensor] = []
    for start in range(0, len(texts), size):
        rows = tokenizer(list(texts[start : start + size]), truncation=True, max_length=WIKI_LENGTH)[
            "input_ids"
        ]
        ids, mask = padded(rows, tokenizer.pad_token_id, True, device)
        logits = model(input_ids=ids, attention_mask=mask).logits
        for i, row in enumerate(rows):
            own = logits[i, -len(row) :]
            losses.append(cross_entropy(own[:-1], ids[i, -len(row) :][1:], reduction="none").float().cpu())
    return float(torch.cat(losses).mean())


class Meter:
    """Memory of the device after every step, in bytes; zeros on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.module: Any = torch.cuda if device.type == "cuda" else None
        if self.module:
            self.module.reset_peak_memory_stats()
        self.before = self.module.max_memory_reserved() if self.module else 0
        self.allocated: list[int] = []
        self.reserved: list[int] = []

    def read(self) -> None:
        """Note what is in use."""
        self.allocated.append(self.module.memory_allocated() - self.before if self.module else 0)
        self.reserved.append(self.module.memory_reserved() - self.before if self.module else 0)

    def peak(self) -> int:
        """The most that was reserved."""
        return int(self.module.max_memory_reserved() - self.before) if self.module else 0


def train(
    model: Any,
    handle: Any,
    tokenizer: Any,
    sets: Sets,
    parameters: Parameters,
    meter: Meter,
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], float, list[float]]:
    """Train the adapter; the metrics as PEFT's result files have them, seconds of training, the loss of every step."""
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(handle.parameters(), **parameters.optimizer_kwargs)
    scheduler = (
        get_cosine_schedule_with_warmup(optimizer, int(WARMUP * parameters.max_steps), parameters.max_steps)
        if parameters.lr_scheduler
        else None
    )
    model.eval()
    with handle.disabled():
        before = text_loss(model, tokenizer, sets.texts, parameters.batch_size)
    ids = encoded(tokenizer, sets.train, parameters, with_response=True)
    held = encoded(tokenizer, sets.validation, parameters, with_response=False)
    metrics: list[dict[str, Any]] = []
    losses: list[float] = []
    seconds: list[float] = []
    tokens: list[int] = []
    samples, judging, started = 0, 0.0, time.perf_counter()
    model.train()
    every = parameters.eval_steps
    for step, rows in zip(
        range(1, parameters.max_steps + 1), batches(ids, parameters.batch_size), strict=False
    ):
        tic = time.perf_counter()
        loss = loss_of(model, rows, tokenizer.pad_token_id, device)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if parameters.grad_norm_clip:
            torch.nn.utils.clip_grad_norm_(handle.parameters(), parameters.grad_norm_clip)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
        meter.read()
        samples += len(rows)
        tokens.append(sum(map(len, rows)) + len(rows))
        seconds.append(time.perf_counter() - tic)
        if step % every == 0:
            tic = time.perf_counter()
            model.eval()
            right = accuracy(
                written(model, tokenizer, held, parameters), [r["response"] for r in sets.validation]
            )
            model.train()
            judging += time.perf_counter() - tic
            spent = sum(seconds[-every:])
            metrics.append(
                {
                    "step": step,
                    "valid accuracy": right,
                    "train loss": sum(losses[-every:]) / every,
                    "train samples": samples,
                    "train time": spent,
                    "eval time": time.perf_counter() - tic,
                    "tokens / sec": sum(tokens[-every:]) / spent,
                    "mem allocated avg": sum(meter.allocated[-every:]) / every,
                    "mem reserved avg": sum(meter.reserved[-every:]) / every,
                    "elapsed time": time.perf_counter() - started,
                }
            )
            say(f"step {step}: loss {metrics[-1]['train loss']:.4f}, validation accuracy {right:.3f}")
    model.eval()
    test = encoded(tokenizer, sets.test, parameters, with_response=False)
    right = accuracy(written(model, tokenizer, test, parameters), [row["response"] for row in sets.test])
    after = text_loss(model, tokenizer, sets.texts, parameters.batch_size)
    metrics.append(
        {
            "step": len(losses),
            "test accuracy": right,
            "train loss": sum(losses[-every:]) / min(every, len(losses)),
            "train samples": samples,
            "train total tokens": sum(tokens),
            "forgetting": after - before,
        }
    )
    say(f"test accuracy {right:.3f}, forgetting {after - before:.3f}")
    return metrics, sum(seconds), losses
