"""`run`: one variant, one learning rate, one seed, on a base that many runs share."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctxpeft.errors import DataError
from ctxpeft.training._bench import Bench
from ctxpeft.training._callbacks import OnEvaluate
from ctxpeft.training._config import TrainingConfig
from ctxpeft.training._folder import RunFolder, config_hash
from ctxpeft.training._job import Job
from ctxpeft.training._methods import Method, VariantLike, load_method
from ctxpeft.training._result import RunResult
from ctxpeft.training.progress import Reporter, Silent

SPLITS = ("validation", "test", "ood")


def resolve(bench: Bench, variant: VariantLike | Method, config: TrainingConfig) -> dict[str, Any]:
    """The configuration of a run with every default filled: what `resolved.yaml` holds."""
    method = load_method(variant)
    bench = bench.drawn(config.seed)
    described = bench.describe()
    about = described.pop("about")
    full = config.resolved(method, len(bench.train))
    return {
        "variant": {"fingerprint": method.fingerprint()},
        **described,
        "training": full.model_dump(mode="json"),
        "about": {"variant": method.described(), **about},
    }


def run(
    bench: Bench,
    variant: VariantLike | Method,
    config: TrainingConfig | None = None,
    *,
    out: Path | None = None,
    splits: Sequence[str] = SPLITS,
    generate: int | None = None,
    labels: bool = True,
    on_evaluate: OnEvaluate | None = None,
    reporter: Reporter | None = None,
    fresh: bool = False,
) -> RunResult:
    """Train and evaluate one variant; the base is bit-exact afterwards, also after an error.

    Args:
        bench: from `prepare`.
        variant: whatever `load_variant` takes, or the baselines `none`, `full` and `probe`.
        config: one learning rate, one seed; unset values come from the variant's hints.
        out: the run's folder. A finished run is read from it, an interrupted one continues; None writes nothing.
        splits: what to evaluate at the end, those of other tasks included; splits that are not there are left out.
        generate: examples checked by greedy generation; the task's `generate_limit` when None.
        labels: whether classification scores every label, or the loss of the true answers alone (see `evaluate`).
        on_evaluate: called with (step, tokens, held-out loss); a true answer stops the run.
        reporter: progress; silent when None.
        fresh: discard what `out` holds.

    Raises:
        CtxpeftError: `out` holds another configuration or is in use; or what attaching raises.
        DataError: the task has no training data.
        KeyboardInterrupt: after saving, on Ctrl-C or SIGTERM.
    """
    method = load_method(variant)
    config = config or TrainingConfig()
    bench = bench.drawn(config.seed)
    config = config.resolved(method, len(bench.train))
    reporter = reporter or Silent()
    if not bench.train and method.name != "none":
        raise DataError(f"{bench.task.spec.name} has no training data")
    if config.patience and not bench.held_out:
        raise DataError(f"{bench.task.spec.name} has no validation data, which patience needs")
    wanted = [name for name in splits if bench.measured_on(name).examples]
    evaluated: dict[str, Any] = {"splits": wanted, "generate": generate}
    if others := {name: bench.elsewhere[name].digest() for name in wanted if name in bench.elsewhere}:
        evaluated["elsewhere"] = others
    if not labels:
        evaluated["labels"] = False
    decided = resolve(bench, method, config) | {"evaluate": evaluated}
    if out is None:
        with tempfile.TemporaryDirectory() as scratch:
            job = Job(bench, method, config, None, Path(scratch), on_evaluate, reporter)
            return job.complete(wanted, generate, labels, config_hash(decided))
    folder = RunFolder(out, decided)
    with folder.locked():
        if fresh:
            folder.clear()
        folder.check()
        if (done := folder.finished()) is not None:
            folder.drop_checkpoints()
            return done
        folder.open()
        job = Job(bench, method, config, folder, folder.checkpoints, on_evaluate, reporter)
        result = job.complete(wanted, generate, labels, folder.hash)
        result.write(folder.path)
        folder.drop_checkpoints()
    return result
