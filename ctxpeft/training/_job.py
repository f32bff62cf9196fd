"""Attach, train with the stock Trainer, evaluate, detach."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging as transformers_logging

from ctxpeft.errors import HostError
from ctxpeft.files import write_text
from ctxpeft.hosts.below import kept_below
from ctxpeft.hosts.handle import BaseHandle
from ctxpeft.tasks import Answers, Encoded, Evaluation, evaluate, takes_answers_alone, token_budget
from ctxpeft.training._bench import Bench
from ctxpeft.training._callbacks import OnEvaluate, Watcher, interruptible
from ctxpeft.training._config import TrainingConfig
from ctxpeft.training._disk import writing_into
from ctxpeft.training._folder import RunFolder
from ctxpeft.training._head import Head
from ctxpeft.training._methods import Method, attach_method
from ctxpeft.training._order import OrderedExamples
from ctxpeft.training._probe import fit
from ctxpeft.training._ratios import split
from ctxpeft.training._result import HeldOut, RunResult
from ctxpeft.training.progress import Reporter

EVAL_ROWS = 64


class _Trainer(Trainer):  # type: ignore[misc]
    """The stock Trainer, reading its data in the order it is given, some parameters at a multiple of its rate, and the
    head of the model where there are answers alone."""

    ratios: Mapping[nn.Parameter, float] = MappingProxyType({})
    answers: Answers

    def read_answers_alone(self) -> None:
        """The loss is that of `Answers` from now on."""
        self.compute_loss_func = self._loss_of_answers

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self.compute_loss_func is None:
            return super().compute_loss(model, inputs, *args, **kwargs)
        self.answers = Answers.of(inputs["labels"])
        with self.answers.alone(self.model):
            return super().compute_loss(model, inputs, *args, **kwargs)

    def _loss_of_answers(self, outputs: Any, _: Tensor, num_items_in_batch: Any = None) -> Tensor:
        logits = self.answers.logits(outputs.logits)
        return self.answers.loss(self.model, logits, num_items_in_batch)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        optimizer.param_groups[:] = split(optimizer.param_groups, self.ratios)
        return optimizer

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


@dataclass
class _Trained:
    """What training tells."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    train_loss: float | None = None
    held_out: tuple[HeldOut, ...] = ()
    stopped: str | None = None
    note: str | None = None


@dataclass
class Job:
    """One run under way. `checkpoints` is where the Trainer may write; `folder` is None where nothing is kept."""

    bench: Bench
    method: Method
    config: TrainingConfig
    folder: RunFolder | None
    checkpoints: Path
    on_evaluate: OnEvaluate | None
    reporter: Reporter

    def complete(
        self, splits: Sequence[str], generate: int | None, labels: bool, config_hash: str
    ) -> RunResult:
        """The whole run."""
        if self.method.name == "probe":
            return self._probe(splits, generate, config_hash)
        model = self.bench.base.model
        with borrowed(model), quiet():
            head = Head(model, self.bench.base.head)
            handle = attach_method(model, self.method, self.config.seed)
            try:
                head.begin(self.config.seed)
                beside = 0 if self.method.name == "full" else head.num_parameters()
                trainable = handle.num_parameters() + beside
                deployed = handle.num_parameters("deployed") + beside
                evaluations: dict[str, Evaluation] = {}
                with kept_below(model, self.bench.base.kept):
                    trained = self._train(handle) if trainable else _Trained()
                    if trained.stopped not in ("callback", "diverged"):
                        for name in splits:
                            on = self.bench.measured_on(name)
                            evaluations[name] = evaluate(model, on.encoder, on.examples, generate, labels)
                if self.folder is not None:
                    self._save(handle, head, self.folder.path / "adapter")
            finally:
                handle.detach()
                head.restore()
        return RunResult(
            method=self.method.name,
            fingerprint=self.method.fingerprint(),
            learning_rate=self.config.learning_rate or 0.0,
            seed=self.config.seed,
            steps=trained.steps,
            tokens=trained.tokens,
            seconds=trained.seconds,
            trainable=trainable,
            deployed=deployed,
            train_loss=trained.train_loss,
            held_out=list(trained.held_out),
            stopped=trained.stopped,
            config_hash=config_hash,
            evaluations=evaluations,
            notes=[*self.bench.notes, *([trained.note] if trained.note else [])],
        )

    def _probe(self, splits: Sequence[str], generate: int | None, config_hash: str) -> RunResult:
        """The linear probe: fitted, not trained; neither rate nor seed enter."""
        probe = fit(self.bench)
        found = {name: probe.evaluate(name, generate) for name in splits}
        if self.folder is not None:
            probe.save(self.folder.path / "adapter")
        return RunResult(
            method=self.method.name,
            fingerprint=self.method.fingerprint(),
            learning_rate=0.0,
            seed=self.config.seed,
            steps=0,
            tokens=sum(map(len, self.bench.train)),
            seconds=probe.seconds,
            trainable=probe.num_parameters(),
            deployed=probe.num_parameters(),
            train_loss=None,
            held_out=[],
            stopped=None,
            config_hash=config_hash,
            evaluations={name: e for name, e in found.items() if e is not None},
            notes=[
                *self.bench.notes,
                f"reads the {probe.reading}, inverse regularisation {probe.strength:g}, chosen on validation data",
            ],
        )

    def _save(self, handle: Any, head: Head, folder: Path) -> None:
        """The adapter, and beside it the head and the prompt it answers to."""
        handle.save(folder)
        if head.parameters:
            head.save(folder)
        if folder.is_dir():
            prompt = yaml.safe_dump(self.bench.task.prompt_spec(), sort_keys=False, allow_unicode=True)
            write_text(folder / "task.yaml", prompt)

    def _train(self, handle: Any) -> _Trained:
        config, base = self.config, self.bench.base
        per_step = config.batch_size * config.gradient_accumulation
        data = OrderedExamples(self.bench.train, config.steps, per_step, config.seed, config.group_by_length)
        path = self.folder.path if self.folder else None
        watcher = Watcher(
            data, self.reporter, self.on_evaluate, path, config.patience, bool(config.eval_every)
        )
        held_out = _held_out(self.bench.held_out, config.eval_limit)
        trainer = _Trainer(
            model=base.model,
            args=self._arguments(bool(held_out)),
            train_dataset=data,
            eval_dataset=held_out or None,
            data_collator=self.bench.encoder.collator(),
            callbacks=[watcher],
        )
        if isinstance(handle, BaseHandle):
            trainer.ratios = {p: ratio for p, ratio in handle.learning_rate_ratios() if ratio != 1.0}
        trainer.remove_callback(PrinterCallback)
        if not base.head and takes_answers_alone(base.model, self._shortest()):
            trainer.read_answers_alone()
        checkpoint = self.folder.last_checkpoint() if self.folder else None
        if checkpoint is not None:
            _relocate_best(checkpoint)
        title = f"{self.method.name} lr {config.learning_rate:g} seed {config.seed}"
        started = time.perf_counter()
        self.reporter.start(title, config.steps)
        try:
            with interruptible(watcher), writing_into(self.checkpoints):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            self.reporter.stop()
            base.model.zero_grad(set_to_none=True)
            if config.gradient_checkpointing:
                _stop_checkpointing(base.model)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return _Trained(
            steps=trainer.state.global_step,
            tokens=data.tokens_after(trainer.state.global_step),
            seconds=time.perf_counter() - started,
            train_loss=losses[-1] if losses else None,
            held_out=tuple(watcher.history(trainer.state)),
            stopped=watcher.stopped,
            note=f"resumed from {checkpoint.name}; seconds count from there" if checkpoint else None,
        )

    def _shortest(self) -> dict[str, Tensor]:
        """A batch of the two shortest examples."""
        rows = sorted(self.bench.train, key=len)[:2]
        batch = self.bench.encoder.collator()([row.features() for row in rows])
        return {name: tensor.to(self.bench.base.device) for name, tensor in batch.items()}

    def _arguments(self, has_held_out: bool) -> TrainingArguments:
        config, base = self.config, self.bench.base
        measures = bool(config.eval_every) and has_held_out
        longest = max((len(e) for e in self.bench.held_out), default=1)
        saves = self.folder is not None or config.patience is not None
        known = {f.name for f in fields(TrainingArguments)}
        recompute = (
            "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
        )
        extra: dict[str, Any] = {}
        if config.gradient_checkpointing:
            extra = {recompute: True, f"{recompute}_kwargs": {"use_reentrant": False}}
        arguments = TrainingArguments(
            output_dir=str(self.checkpoints),
            max_steps=config.steps,
            per_device_train_batch_size=config.batch_size,
            per_device_eval_batch_size=max(
                config.batch_size, min(EVAL_ROWS, token_budget(base.model) // longest)
            ),
            gradient_accumulation_steps=config.gradient_accumulation,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            lr_scheduler_type=config.scheduler,
            warmup_steps=config.warmup_steps(),
            max_grad_norm=config.max_grad_norm,
            optim="adamw_torch",
            seed=config.seed,
            data_seed=config.seed,
            eval_strategy="steps" if measures else "no",
            eval_steps=config.eval_every if measures else None,
            save_strategy="steps" if saves else "no",
            save_steps=config.save_every,
            save_total_limit=2,
            load_best_model_at_end=config.patience is not None,
            metric_for_best_model="eval_loss" if measures else None,
            greater_is_better=False if measures else None,
            logging_steps=max(1, config.steps // 50),
            logging_nan_inf_filter=False,
            prediction_loss_only=True,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_num_workers=0,
            dataloader_pin_memory=base.device.type != "cpu",
            use_cpu=base.device.type == "cpu",
            disable_tqdm=True,
            report_to=[],
            **extra,
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # one device: DataParallel would copy the adapter's state
        return arguments


def _held_out(encoded: Sequence[Encoded], limit: int) -> list[dict[str, Any]]:
    """A fixed sample, in order of length so that batches carry little padding."""
    chosen = sorted(encoded, key=lambda e: e.example.id)[:limit]
    return [e.features() for e in sorted(chosen, key=lambda e: -len(e))]


def _relocate_best(checkpoint: Path) -> None:
    """Point the Trainer's state at the best checkpoint where the folder is now; it may have been moved."""
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    best = state.get("best_model_checkpoint")
    if best and not Path(best).is_dir():
        here = checkpoint.parent / Path(best).name
        state["best_model_checkpoint"] = str(here) if here.is_dir() else None
        write_text(path, json.dumps(state))


def _stop_checkpointing(model: Any) -> None:
    new = getattr(model, "activation_checkpointing_disable", None)
    (new or model.gradient_checkpointing_disable)()


@contextlib.contextmanager
def borrowed(model: Any) -> Iterator[None]:
    """Give the model back in the mode and with the configuration it came with."""
    if getattr(model.config, "is_encoder_decoder", False):
        raise HostError("tasks train causal language models: this model is an encoder-decoder")
    training, use_cache = model.training, getattr(model.config, "use_cache", None)
    before = set(vars(model))
    try:
        yield
    finally:
        model.train(training)
        if use_cache is not None:
            model.config.use_cache = use_cache
        for name in set(vars(model)) - before:
            delattr(model, name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the Trainer's own messages off the screen."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            for module in ("torch", "accelerate", "transformers"):
                warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
            yield
    finally:
        transformers_logging.set_verbosity(level)
