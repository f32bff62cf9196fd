"""Where designs are trained: the model and the data, loaded once, and a folder of runs that never repeats one."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ctxpeft.search.anchors import Anchor, load_anchor
from ctxpeft.search.counting import Counter, target_of
from ctxpeft.spec.explain import spec_error
from ctxpeft.spec.variant import Variant
from ctxpeft.spec.yaml_lines import Document

if TYPE_CHECKING:
    from ctxpeft.search.job import Job
    from ctxpeft.tasks import Evaluation
    from ctxpeft.training import RunResult, TrainingConfig
    from ctxpeft.training.progress import Reporter


class Laboratory:
    """Trains variants of one job. `bench` is what all runs share; `counter` counts parameters on the model."""

    def __init__(self, job: Job) -> None:
        import torch

        from ctxpeft.tasks import build_task
        from ctxpeft.training import load_base, prepare

        if job.threads is not None:
            torch.set_num_threads(job.threads)
        self.job = job
        self.config = training_config(job.space.file.training)
        self.bench = prepare(load_base(job.model), build_task(job.task))
        self.counter = Counter(self.bench.base.model)
        self.target = target_of(job.space.file.budget, self.counter)
        self.steps = self.config.resolved(None, len(self.bench.train)).steps
        self.rung_steps = max(1, round(self.steps * job.search.rung))
        gc.collect()
        gc.freeze()  # the Trainer collects garbage after every run; what is loaded by now is none

    def anchor(self, name: str) -> Anchor:
        """An anchor at its size for the budget."""
        return load_anchor(name, self.job.space.folder, self.counter, self.target)

    def train(
        self,
        variant: Variant,
        rate: float,
        steps: int,
        seed: int,
        splits: tuple[str, ...] = ("validation",),
        reporter: Reporter | None = None,
    ) -> RunResult:
        """One run, or its result if the very same run was finished before. Test data are read only if named."""
        from ctxpeft.training import config_hash, resolve, run

        config = self.config.model_copy(
            update={"learning_rate": rate, "steps": steps, "epochs": None, "seed": seed}
        )
        decided = resolve(self.bench, variant, config) | {"evaluate": {"splits": list(splits)}}
        out = self.job.out / "runs" / config_hash(decided)[:16]
        return run(self.bench, variant, config, out=out, splits=splits, generate=0, reporter=reporter)

    def score(self, evaluation: Evaluation) -> float:
        """The objective of an evaluation; smaller is better."""
        if self.job.search.objective == "metric":
            return -evaluation.value if evaluation.greater_is_better else evaluation.value
        return loss_of(evaluation)

    def describe(self) -> dict[str, Any]:
        """What decides results: two studies that differ here are not one study."""
        file = self.job.space.file
        return {
            "space": file.model_dump(
                mode="json", exclude={"title", "model", "task", "search", "training", "data"}
            ),
            "search": file.search.model_dump(mode="json", exclude={"trials", "finalists", "seeds"}),
            "training": self.config.resolved(None, len(self.bench.train)).model_dump(
                mode="json", exclude={"learning_rate", "seed"}
            ),
            "model": self.bench.base.digest(),
            "task": self.bench.task.digest(),
        }


def loss_of(evaluation: Evaluation) -> float:
    """Mean nats a token of the answer: what training minimises, and steadier than a metric while runs are short."""
    return evaluation.metrics.get("token_loss", float("inf"))


def training_config(settings: dict[str, Any]) -> TrainingConfig:
    """A space's `training` section; held-out loss during a run is not measured unless it asks. Raises SpecError."""
    from ctxpeft.training import TrainingConfig

    data = {"eval_every": 0, **settings}
    try:
        return TrainingConfig.model_validate(data)
    except ValidationError as error:
        raise spec_error(error, Document(data, {}, "training"), TrainingConfig) from None
