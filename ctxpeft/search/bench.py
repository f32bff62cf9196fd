"""Where designs are trained: the model and the data, loaded once, and a folder of runs that never repeats one."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from ctxpeft.files import write_text
from ctxpeft.search.anchors import Anchor, load_anchor
from ctxpeft.search.counting import Counter, space_on, target_of
from ctxpeft.search.described import asked
from ctxpeft.search.joint import joint
from ctxpeft.spec.explain import spec_error
from ctxpeft.spec.variant import Variant
from ctxpeft.spec.yaml_lines import Document

if TYPE_CHECKING:
    from ctxpeft.search.job import Job
    from ctxpeft.search.measures import Name
    from ctxpeft.search.meter import Forgetting
    from ctxpeft.spec.guide import Facts
    from ctxpeft.tasks import Evaluation
    from ctxpeft.training import Bench, RunResult, TrainingConfig
    from ctxpeft.training.progress import Reporter


POLL_S = 0.2
Trained = TypeVar("Trained")


class Laboratory:
    """Trains variants of one job.

    benches: by task, what all its runs share. counter: counts parameters on the model. references: what the frozen
    model loses on each task, where several are one objective; None where no reference is needed.
    """

    def __init__(self, job: Job) -> None:
        import torch

        from ctxpeft.hosts.kept import Kept
        from ctxpeft.tasks import build_task
        from ctxpeft.training import load_base, prepare

        if job.threads is not None:
            torch.set_num_threads(job.threads)
        self.config = training_config(job.space.file.training)
        data = [build_task(spec) for spec in job.tasks]
        self.base = replace(load_base(job.model), kept=Kept(job.search.cache << 20))
        self.job = replace(job, space=space_on(job.space, self.base.model))
        self.benches: dict[str, Bench] = {task.spec.name: prepare(self.base, task) for task in data}
        self.counter = Counter(self.base.model)
        self.target = target_of(job.space.file.budget, self.counter)
        self.references: dict[str, float] | None = None
        self._check()
        gc.collect()
        gc.freeze()  # the Trainer collects garbage after every run; what is loaded by now is none

    @cached_property
    def facts(self) -> Facts:
        """What the construction guide asks of the model and the data."""
        from ctxpeft.analysis.facts import facts_of

        return facts_of(self.benches.values())

    @property
    def guide(self) -> Facts | None:
        """The facts, where designs are to stay within the guide."""
        return self.facts if self.job.search.guide else None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks' names."""
        return tuple(self.benches)

    def steps(self, task: str) -> int:
        """Steps of a full run."""
        return self._resolved(task).steps

    def _resolved(self, task: str) -> TrainingConfig:
        """The settings of the runs, whatever is trained."""
        from ctxpeft.training import load_method

        return self.config.resolved(load_method("none"), len(self.benches[task].train))

    def rung_steps(self, task: str, level: int = 0) -> int:
        """Steps of a run to a rung."""
        return max(1, round(self.steps(task) * self.job.search.rungs[level]))

    def all_rung_steps(self, level: int = 0) -> int:
        """Steps to a rung over all tasks: what its value is reported at."""
        return sum(self.rung_steps(task, level) for task in self.tasks)

    def tokens(self, task: str, steps: int) -> int:
        """Training tokens in so many steps, padding left out; the same for every design, whose data order it is."""
        from ctxpeft.training import OrderedExamples

        bench, config = self.benches[task], self.config
        per_step = config.batch_size * config.gradient_accumulation
        order = OrderedExamples(bench.train, steps, per_step, self.job.search.seed, config.group_by_length)
        return order.tokens_after(steps)

    def anchor(self, name: str) -> Anchor:
        """An anchor at its size for the budget."""
        return load_anchor(name, self.job.space.folder, self.counter, self.target)

    def train(
        self,
        variant: Variant | str,
        rate: float | None,
        steps: int,
        seed: int,
        splits: tuple[str, ...] = ("validation",),
        reporter: Reporter | None = None,
        task: str | None = None,
        labels: bool = True,
    ) -> RunResult:
        """One run, or its result if the very same run was finished before. Test data are read only if named.

        `task` is the first one if it is left out; `labels` is as in `ctxpeft.training.run`.
        """
        from ctxpeft.training import run

        bench = self.benches[task or self.tasks[0]]
        config = self._config(rate, steps, seed)
        out = self.folder(variant, rate, steps, seed, splits, task, labels)
        return in_turn(
            lambda: run(
                bench, variant, config, out=out, splits=splits, generate=0, labels=labels, reporter=reporter
            )
        )

    def train_rates(
        self,
        variant: Variant,
        rates: Sequence[float],
        steps: int,
        seed: int,
        reporter: Reporter | None = None,
        task: str | None = None,
        labels: bool = True,
    ) -> list[RunResult]:
        """A run at every rate, on validation data: in one pass where that can be, else one by one as `train` does."""
        from ctxpeft.training import run_beside

        bench = self.benches[task or self.tasks[0]]
        configs = [self._config(rate, steps, seed) for rate in rates]
        if self.apart(variant, rates, steps, seed, task):
            return [
                self.train(variant, rate, steps, seed, reporter=reporter, task=task, labels=labels)
                for rate in rates
            ]
        out = [
            self.folder(variant, rate, steps, seed, task=task, labels=labels, beside=True) for rate in rates
        ]
        return in_turn(lambda: run_beside(bench, variant, configs, out=out, labels=labels, reporter=reporter))

    def apart(
        self, variant: Variant, rates: Sequence[float], steps: int, seed: int, task: str | None = None
    ) -> bool:
        """Whether the rates of a variant are trained one by one."""
        from ctxpeft.training import why_apart

        bench = self.benches[task or self.tasks[0]]
        configs = [self._config(rate, steps, seed) for rate in rates]
        return not self.job.search.together or len(configs) < 2 or bool(why_apart(bench, variant, configs))

    def folder(
        self,
        variant: Variant | str,
        rate: float | None,
        steps: int,
        seed: int,
        splits: tuple[str, ...] = ("validation",),
        task: str | None = None,
        labels: bool = True,
        beside: bool = False,
    ) -> Path:
        """Where `train` keeps a run, or `train_rates` one that was trained `beside` others."""
        from ctxpeft.training import config_hash, resolve

        bench = self.benches[task or self.tasks[0]]
        how = {"splits": list(splits)} | ({} if labels else {"labels": False})
        how |= {"beside": True} if beside else {}
        decided = resolve(bench, variant, self._config(rate, steps, seed)) | {"evaluate": how}
        return self.job.out / "runs" / config_hash(decided)[:16]

    def _config(self, rate: float | None, steps: int, seed: int) -> TrainingConfig:
        return self.config.model_copy(
            update={"learning_rate": rate, "steps": steps, "epochs": None, "seed": seed}
        )

    def score(self, evaluation: Evaluation) -> float:
        """What rates and rungs are compared by, on one task; smaller is better."""
        if self.job.search.quality == "metric":
            return -evaluation.value if evaluation.greater_is_better else evaluation.value
        return loss_of(evaluation)

    @property
    def metric(self) -> str:
        """The main metric of the tasks."""
        return "accuracy" if self._classifies else "token_loss"

    @property
    def _classifies(self) -> bool:
        return self.benches[self.tasks[0]].task.kind == "classification"

    def cost(self, name: Name, value: float) -> float:
        """A measured value with the sign that makes smaller better."""
        return -value if name in ("metric", "ood") and self._classifies else value

    def excess(self, name: Name, value: float) -> float:
        """By how much a value breaks its constraint; at most 0 where it keeps it."""
        return self.cost(name, value) - self.cost(name, self.job.search.constraints[name])

    def latency(self, variant: Variant) -> float:
        """Decoding time against the frozen model's; measured once a design and kept."""
        from ctxpeft.search.meter import decode_ratio

        kept = self.job.out / "measures" / f"{variant.fingerprint()[:16]}.json"
        if kept.is_file():
            return float(json.loads(kept.read_text(encoding="utf-8"))["latency"])
        ratio = decode_ratio(self.base, variant)
        write_text(kept, json.dumps({"latency": ratio}) + "\n")
        return ratio

    @cached_property
    def other_text(self) -> Forgetting:
        """The text that must not be forgotten."""
        from ctxpeft.search.meter import Forgetting

        search = self.job.search
        return Forgetting(self.base, str(search.forgetting), search.forgetting_tokens)

    def joint(self, values: Sequence[float]) -> float:
        """What is compared over the tasks, `values` in their order."""
        references = None if self.references is None else [self.references[task] for task in self.tasks]
        return joint(values, references)

    def refer(self, known: Mapping[str, float] | None) -> dict[str, float] | None:
        """Take the references a study holds, or measure them if they are needed."""
        if len(self.tasks) > 1 and self.job.search.quality == "loss":
            measured = known or {task: self._frozen(task) for task in self.tasks}
            self.references = {task: float(measured[task]) for task in self.tasks}
        return self.references

    def _frozen(self, task: str) -> float:
        result = self.train("none", None, 1, self.job.search.seed, task=task, labels=False)
        return loss_of(result.evaluations["validation"])

    def _check(self) -> None:
        from ctxpeft.errors import DataError

        for name, bench in self.benches.items():
            if not bench.task.validation:
                raise DataError(f"{name} has no validation data, which the search decides by")
            if "ood" in self.job.search.wanted and not bench.task.ood:
                raise DataError(f"{name} has no out-of-distribution data (ood: FILE), which the search wants")
        kinds = {name: bench.task.kind == "classification" for name, bench in self.benches.items()}
        asked = next((name for name in ("metric", "ood") if name in self.job.search.wanted), None)
        if asked and len(set(kinds.values())) > 1:
            accuracy, loss = (next(n for n, k in kinds.items() if k == kind) for kind in (True, False))
            raise DataError(
                f"the search's {asked} cannot join {accuracy} (accuracy) and {loss} (token loss): use loss"
            )
        if "forgetting" in self.job.search.wanted:
            _ = self.other_text

    def describe(self) -> dict[str, Any]:
        """What decides results: two studies that differ here are not one study."""
        file = self.job.space.file
        digests = {name: bench.task.digest() for name, bench in self.benches.items()}
        return {
            **asked(file),
            "training": self._resolved(self.tasks[0]).model_dump(
                mode="json", exclude={"learning_rate", "seed"}
            ),
            "model": self.base.digest(),
            "task": digests if len(digests) > 1 else digests[self.tasks[0]],
            **({"forgetting": self.other_text.digest} if "forgetting" in file.search.wanted else {}),
        }


def in_turn(train: Callable[[], Trained]) -> Trained:
    """What a run returns, after another worker that drew the same design at the same moment is done with its folder.

    That one's result is then read; one that was killed holds no lock.
    """
    from ctxpeft.training import InUseError

    while True:
        try:
            return train()
        except InUseError:
            time.sleep(POLL_S)


def loss_of(evaluation: Evaluation) -> float:
    """Mean nats a token of the answer: what training minimises, and steadier than a metric while runs are short."""
    return evaluation.metrics.get("token_loss", float("inf"))


def training_config(settings: dict[str, Any]) -> TrainingConfig:
    """A space's `training` section. Held-out loss during a run is not measured unless it asks, by `eval_every` or by
    `patience`, which counts measurements. Raises SpecError."""
    from ctxpeft.training import TrainingConfig

    data = settings if settings.get("patience") is not None else {"eval_every": 0, **settings}
    try:
        return TrainingConfig.model_validate(data)
    except ValidationError as error:
        raise spec_error(error, Document(data, {}, "training"), TrainingConfig) from None
