"""Classification by generation: the log-likelihood of every label's text after the prompt.

Shapes: B rows (prompts), C labels, P paths of the trie, L tokens of a path, T of a prompt, V vocabulary.
The prompt runs once; labels of one token cost nothing more; longer ones continue from the prompt's cache.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ctxpeft.hosts.passes import if_attached
from ctxpeft.tasks._answers import Answers
from ctxpeft.tasks._collate import IGNORED, Collator, by_length, left_padded
from ctxpeft.tasks._encode import Ids
from ctxpeft.tasks._trie import LabelTrie, disjoint, label_trie

LOGIT_BUDGET = 1 << 26  # floats of logits held at once (256 MB)


def label_scores(
    model: nn.Module,
    prompts: Sequence[Ids],
    label_ids: dict[str, Ids],
    eos: Ids,
    pad: int,
    rows: int = 64,
    tokens: int = 8192,
) -> Tensor:
    """Log-likelihood (nats) of each label after each prompt: (len(prompts), C), in the order of `label_ids`.

    Equal to running one sequence a label. `rows` and `tokens` bound a batch; `tokens` also bounds the keys
    and values of the expanded cache.
    """
    trie = label_trie(label_ids, eos)
    scores = torch.empty(len(prompts), len(trie.labels))
    for batch in by_length([len(p) for p in prompts], rows, tokens):
        chosen = [prompts[i] for i in batch]
        with if_attached(model, _generated(chosen, trie)):
            found = _cached_scores(model, chosen, trie, pad, tokens)
        if found is None:
            found = naive_scores(model, chosen, label_ids, eos, pad)
        scores[batch] = found
    return scores


def _generated(prompts: Sequence[Ids], trie: LabelTrie) -> Tensor:
    """(1, T + L) booleans: what follows the prompts is generated."""
    length, longest = max(map(len, prompts)), max(map(len, trie.paths), default=0)
    return torch.arange(length + longest)[None] >= length


def naive_scores(
    model: nn.Module, prompts: Sequence[Ids], label_ids: dict[str, Ids], eos: Ids, pad: int
) -> Tensor:
    """The definition: one sequence a prompt and label, the label's tokens summed. (B, C)"""
    everything = list(label_ids.values())
    collate = Collator(pad)
    scores = torch.empty(len(prompts), len(everything))
    longest = max(map(len, prompts)) + max(map(len, everything)) + 1
    rows = max(1, token_budget(model) // longest)
    for c, ids in enumerate(everything):
        scored = disjoint(ids, everything, eos)
        for start in range(0, len(prompts), rows):
            features = [
                {"input_ids": [*p, *scored], "labels": [IGNORED] * len(p) + list(scored)}
                for p in prompts[start : start + rows]
            ]
            scores[start : start + rows, c] = -sequence_losses(model, collate(features))
    return scores


def token_budget(model: Any) -> int:
    """How many tokens a forward that returns every logit may have: 8,192, fewer with a large vocabulary."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    return max(1, min(8192, LOGIT_BUDGET // vocabulary))


@torch.no_grad()
def sequence_losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The summed negative log-likelihood (nats) of each row's labelled tokens: (B,), on the CPU."""
    device = next(model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    answers = Answers.of(batch.pop("labels"))
    with answers.alone(model):
        logits_NV = answers.logits(model(**batch, **options).logits)
    losses = cross_entropy(logits_NV.float(), answers.targets, reduction="none")
    summed = losses.new_zeros(len(answers.labels)).index_add(0, answers.rows, losses)
    return summed.cpu()


@torch.no_grad()
def _cached_scores(
    model: nn.Module, prompts: Sequence[Ids], trie: LabelTrie, pad: int, tokens: int
) -> Tensor | None:
    """(B, C), or None where the model keeps no cache that can be repeated."""
    device = next(model.parameters()).device
    ids, mask, positions = left_padded(prompts, pad, device)
    accepted = inspect.signature(model.forward).parameters
    needs_cache = bool(trie.paths)
    if needs_cache and getattr(model, "_is_stateful", False):
        return None
    extra: dict[str, Any] = {"position_ids": positions} if "position_ids" in accepted else {}
    if "logits_to_keep" in accepted:
        extra["logits_to_keep"] = 1
    output = model(input_ids=ids, attention_mask=mask, use_cache=needs_cache, **extra)
    first = output.logits[:, -1].float().log_softmax(-1).cpu()
    scores = torch.stack([first[:, steps[0].token] for steps in trie.steps], dim=1)
    if not needs_cache:
        return scores
    cache = output.past_key_values
    if not callable(getattr(cache, "batch_repeat_interleave", None)):
        return None
    start = 0
    while start < len(trie.paths):
        longest = len(trie.paths[start])
        per_path = len(prompts) * max(
            ids.shape[1] + longest, longest * output.logits.shape[-1] * tokens // LOGIT_BUDGET
        )
        chunk = range(start, min(start + max(1, tokens // per_path), len(trie.paths)))
        paths = [trie.paths[i] for i in chunk]
        wanted = [(c, step) for c, steps in enumerate(trie.steps) for step in steps[1:] if step.path in chunk]
        places = [(step.path - start, step.depth - 1, step.token) for _, step in wanted]
        logp = _continue(model, cache, mask, positions, paths, places, pad, "position_ids" in accepted)
        scores.index_add_(1, torch.tensor([c for c, _ in wanted]), logp)
        start = chunk.stop
    return scores


def _continue(
    model: nn.Module,
    cache: Any,
    mask: Tensor,
    positions: Tensor,
    paths: Sequence[Ids],
    places: Sequence[tuple[int, int, int]],
    pad: int,
    with_positions: bool,
) -> Tensor:
    """Log-probabilities at `places` (path, index in the path, next token), from a copy of the prompt's cache.

    (B, len(places)), on the CPU.
    """
    count, width = len(paths), max(map(len, paths))
    rows = mask.shape[0]
    ids = torch.tensor([[*path, *[pad] * (width - len(path))] for path in paths], device=mask.device)
    own = copy.deepcopy(cache)
    own.batch_repeat_interleave(count)
    mask = torch.cat([mask.repeat_interleave(count, 0), mask.new_ones(rows * count, width)], 1)
    after = positions[:, -1:].repeat_interleave(count, 0) + torch.arange(1, width + 1, device=mask.device)
    output = model(
        input_ids=ids.repeat(rows, 1),
        attention_mask=mask,
        past_key_values=own,
        use_cache=True,
        **({"position_ids": after} if with_positions else {}),
    )
    logits_BPLV = output.logits.float().view(rows, count, width, -1)
    path, index, token = torch.tensor(places, device=mask.device).unbind(1)
    logp: Tensor = logits_BPLV[:, path, index, token] - logits_BPLV.logsumexp(-1)[:, path, index]
    return logp.cpu()
