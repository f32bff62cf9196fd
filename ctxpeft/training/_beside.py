"""Runs over the same examples in one order, each of its variant and rate, trained side by side, one pass a step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import get_scheduler

import ctxpeft
from ctxpeft.hosts.below import kept_below
from ctxpeft.tasks import Evaluation, evaluate
from ctxpeft.training._bench import Bench
from ctxpeft.training._callbacks import interruptible
from ctxpeft.training._config import TrainingConfig
from ctxpeft.training._folder import RunFolder
from ctxpeft.training._job import borrowed, quiet
from ctxpeft.training._methods import Method, VariantLike, load_method
from ctxpeft.training._order import OrderedExamples
from ctxpeft.training._result import RunResult
from ctxpeft.training._run import resolve
from ctxpeft.training._together import Member, Together
from ctxpeft.training.progress import Reporter, Silent


@dataclass
class _Stop:
    interrupted: bool = False


class _Run(NamedTuple):
    method: Method
    config: TrainingConfig
    folder: RunFolder


Variants = VariantLike | Method | Sequence[VariantLike | Method]


def why_apart(bench: Bench, variants: Variants, configs: Sequence[TrainingConfig]) -> str:
    """Why such runs have to be trained one by one; "" where `run_beside` takes them."""
    methods = _methods(variants, configs)
    full = [_resolved(bench, *pair) for pair in zip(methods, configs, strict=True)]
    first = full[0]
    for method in methods:
        if method.variant is None or method.variant.peft is not None:
            return f"rows of a batch are not routed to {method.name}"
    if bench.base.head:
        return "a classification head is trained beside the adapter"
    if any(c.model_copy(update={"learning_rate": first.learning_rate}) != first for c in full):
        return "more than the learning rate differs"
    if first.weight_decay or first.gradient_accumulation > 1 or first.gradient_checkpointing:
        return "weight decay, accumulation and checkpointing are the Trainer's"
    if first.patience is not None or (first.eval_every and bench.held_out):
        return "held-out loss is measured during the run"
    if any(isinstance(m, nn.Dropout) and m.p for m in bench.base.model.modules()):
        return "the model draws dropout"
    return ""


def _methods(variants: Variants, configs: Sequence[TrainingConfig]) -> list[Method]:
    """The method of each run."""
    if isinstance(variants, Sequence) and not isinstance(variants, str):
        if len(variants) != len(configs):
            raise ValueError(
                f"{len(variants)} variants for {len(configs)} configurations: one for each, or one for all"
            )
        return [load_method(variant) for variant in variants]
    return [load_method(variants)] * len(configs)


def _resolved(bench: Bench, method: Method, config: TrainingConfig) -> TrainingConfig:
    return config.resolved(method, len(bench.train))


def run_beside(
    bench: Bench,
    variants: Variants,
    configs: Sequence[TrainingConfig],
    *,
    out: Sequence[Path],
    splits: Sequence[str] = ("validation",),
    labels: bool = True,
    reporter: Reporter | None = None,
) -> list[RunResult]:
    """Train and evaluate one variant at several rates, or several variants; the base is bit-exact afterwards.

    The data order, the loss, the clipping, the optimizer and the schedule are those of `run`; each run has adapter and
    optimizer of its own, and a step of all is one pass over a batch with the rows of each. So the results are those of
    separate runs, but for the rounding of a wider batch.

    Args:
        bench: from `prepare`.
        variants: what is trained, one for all runs or one for each; `why_apart` must have nothing against it.
        configs: equal but for the learning rate, as many as there are runs.
        out: a folder for each; finished ones are read, and the others train. Nothing is kept of an interrupted run.
        splits: what to evaluate at the end, as in `run`; nothing is generated.
        labels: as in `run`.
        reporter: progress; silent when None.

    Raises:
        ValueError: these runs have to be trained apart, or there are not as many variants as configurations.
        CtxpeftError: a folder holds another configuration or is in use; or what attaching raises.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step.
    """
    methods = _methods(variants, configs)
    if reason := why_apart(bench, methods, configs):
        raise ValueError(reason)
    seed = configs[0].seed
    drawn = bench.drawn(seed)
    full = [_resolved(drawn, *pair) for pair in zip(methods, configs, strict=True)]
    wanted = [name for name in splits if drawn.measured_on(name).examples]
    how = {"splits": wanted, "generate": 0, "beside": True} | ({} if labels else {"labels": False})
    folders = [
        RunFolder(path, resolve(bench, method, config) | {"evaluate": how})
        for path, method, config in zip(out, methods, full, strict=True)
    ]
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(folder.locked())
            folder.check()
        done = [folder.finished() for folder in folders]
        missing = [i for i, result in enumerate(done) if result is None]
        if missing:
            for i in missing:
                folders[i].open()
            runs = [_Run(methods[i], full[i], folders[i]) for i in missing]
            found = _train(drawn, runs, wanted, labels, reporter or Silent())
            for i, result in zip(missing, found, strict=True):
                result.write(folders[i].path)
                done[i] = result
    return [result for result in done if result is not None]


def _train(
    bench: Bench,
    runs: Sequence[_Run],
    splits: Sequence[str],
    labels: bool,
    reporter: Reporter,
) -> list[RunResult]:
    model, first = bench.base.model, runs[0].config
    data = OrderedExamples(bench.train, first.steps, first.batch_size, first.seed, first.group_by_length)
    attached = _attached(model, runs)
    with borrowed(model), quiet(), attached as handles, kept_below(model, bench.base.kept):
        members = {
            name: _member(handle, one.config)
            for (name, handle), one in zip(handles.items(), runs, strict=True)
        }
        together = Together(model, members)
        losses = _steps(bench, together, data, first, _title(runs), reporter)
        seconds = losses.pop("seconds")[0]
        results = []
        for name, (method, config, folder) in zip(handles, runs, strict=True):
            evaluations: dict[str, Evaluation] = {}
            diverged = together.members[name].diverged
            ctxpeft.activate(model, [name])
            if not diverged:
                for split in splits:
                    on = bench.measured_on(split)
                    evaluations[split] = evaluate(model, on.encoder, on.examples, 0, labels)
            handles[name].save(folder.path / "adapter")
            mine = losses[name]
            results.append(
                RunResult(
                    method=method.name,
                    fingerprint=method.fingerprint(),
                    learning_rate=config.learning_rate or 0.0,
                    seed=config.seed,
                    steps=len(mine),
                    tokens=data.tokens_after(len(mine)),
                    seconds=seconds / len(runs),
                    trainable=handles[name].num_parameters(),
                    deployed=handles[name].num_parameters("deployed"),
                    train_loss=mine[-1] if mine else None,
                    held_out=[],
                    stopped="diverged" if diverged else None,
                    config_hash=folder.hash,
                    evaluations=evaluations,
                    notes=[*bench.notes, f"trained side by side with {len(runs) - 1} other runs"],
                )
            )
    return results


def _title(runs: Sequence[_Run]) -> str:
    """What progress calls them."""
    names = list(dict.fromkeys(one.method.name for one in runs))
    return f"{names[0]}, {len(runs)} rates" if len(names) == 1 else f"{len(names)} variants, {len(runs)} runs"


@contextlib.contextmanager
def _attached(model: Any, runs: Sequence[_Run]) -> Iterator[dict[str, Any]]:
    handles: dict[str, Any] = {}
    try:
        for i, (method, config, _) in enumerate(runs):
            name = f"run-{i}"
            assert method.variant is not None
            handles[name] = ctxpeft.attach(model, method.variant, name=name, seed=config.seed)
        yield handles
    finally:
        for handle in reversed(handles.values()):
            handle.detach()
        model.zero_grad(set_to_none=True)


def _member(handle: Any, config: TrainingConfig) -> Member:
    groups = handle.parameter_groups(config.learning_rate or 0.0)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    scheduler = get_scheduler(
        config.scheduler, optimizer, num_warmup_steps=config.warmup_steps(), num_training_steps=config.steps
    )
    return Member(optimizer, scheduler, config.max_grad_norm or None)


def _steps(
    bench: Bench,
    together: Together,
    data: OrderedExamples,
    config: TrainingConfig,
    title: str,
    reporter: Reporter,
) -> dict[str, list[float]]:
    """The losses of every member by step, and under `seconds` how long it took."""
    losses: dict[str, list[float]] = {name: [] for name in together.members}
    device = bench.base.device
    batches = DataLoader(data, batch_size=config.batch_size, collate_fn=bench.encoder.collator())
    stop = _Stop()
    started = time.perf_counter()
    reporter.start(title, config.steps)
    try:
        together.model.train()
        with interruptible(stop):
            for step, batch in enumerate(batches, start=1):
                names = together.running()
                if stop.interrupted or not names:
                    break
                held = {key: value.to(device) for key, value in batch.items()}
                for name, loss in together.step(dict.fromkeys(names, held)).items():
                    losses[name].append(loss)
                reporter.update(step, "")
    finally:
        reporter.stop()
    losses["seconds"] = [time.perf_counter() - started]
    return losses
