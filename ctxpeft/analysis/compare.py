"""Compare variants fairly: rates tuned on validation data, the same seeds for all, paired intervals.

Test data are read only by the runs at the chosen rate.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctxpeft.analysis.comparison import Comparison, Entry
from ctxpeft.analysis.rates import RateTrial, best_rate, rate_grid, tune_rate
from ctxpeft.analysis.statistics import (
    Interval,
    as_matrix,
    bootstrap_mean,
    holm,
    paired_difference,
    standard_deviation,
)
from ctxpeft.errors import DataError, SpecError
from ctxpeft.extras import require
from ctxpeft.files import write_json, write_text
from ctxpeft.folders import COMPARISON, only_for
from ctxpeft.tasks import Evaluation
from ctxpeft.training import (
    Bench,
    Method,
    Reporter,
    RunResult,
    Silent,
    TrainingConfig,
    VariantLike,
    count_parameters,
    load_method,
    run,
)

SWEEP_SEED = 1000  # never a seed of the comparison itself
TESTED = ("test", "ood", "unrelated")


def compare(
    bench: Bench,
    variants: Sequence[VariantLike | Method],
    out: Path,
    *,
    seeds: int | Sequence[int] = 5,
    config: TrainingConfig | None = None,
    lr_sweep: bool = False,
    rates: Sequence[float] | None = None,
    sweep_steps: int | None = None,
    resamples: int = 10_000,
    reporter: Reporter | None = None,
    fresh: bool = False,
    runs: Path | None = None,
) -> Comparison:
    """Train every variant with every seed, and say what differs.

    Args:
        bench: from `ctxpeft.training.prepare`. With `draw: seed` every seed draws its own training examples. Where it
            has the splits `ood` and `unrelated`, every run is measured on them too, and so is the frozen base.
        variants: the first is the reference; the baselines `none`, `full` and `probe` are allowed.
        out: gets `runs/`, `compare.json`, `table.md` and `compare.png`, and `transfer.*` where there
            is anything to say about other data. Finished runs found there are kept.
        seeds: a number (0, 1, ...) or the seeds; shared by all variants, initialisation and data order.
        config: steps, batch size and so on; its learning rate, if set, is every variant's.
        lr_sweep: tune the rate of each variant on validation data; else the variant's hint or the default.
        rates: the rates to try instead of a factor of three around the hint.
        sweep_steps: length of the sweep's runs; as long as the others when None.
        resamples: of the bootstrap.
        reporter: progress; silent when None.
        fresh: discard the runs in `out`.
        runs: where runs are kept, `out/runs` when None: the same runs may be compared with several references.

    Raises:
        DataError: the task has no test data, or no validation data to tune on.
        HostError: a variant does not fit the model; nothing has run then.
        SpecError: fewer than two variants, or two that are the same method.
        CtxpeftError: `out` holds runs of another configuration or other results, or the extra `plots` is not installed.
    """
    require("matplotlib", "plots", "the picture of a comparison")
    reporter = reporter or Silent()
    config = config or TrainingConfig()
    methods = [load_method(v) for v in variants]
    chosen_seeds = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    check_comparison(bench, methods, chosen_seeds, lr_sweep)
    only_for(COMPARISON, out)
    kept = runs or out / "runs"
    if fresh:
        shutil.rmtree(kept, ignore_errors=True)
    study = _Study(bench, kept, config, reporter)
    rows: list[tuple[Method, list[RateTrial], list[RunResult]]] = []
    for method in methods:
        trials: list[RateTrial] = []
        rate = config.learning_rate
        if lr_sweep and study.tunes(method):
            grid = sorted(rates) if rates else rate_grid(config.learning_rate or method.usual_rate())
            trials = tune_rate(grid, lambda r, m=method: study.sweep(m, r, sweep_steps))  # type: ignore[misc]
            rate = best_rate(trials).rate
            reporter.note(f"{method.name}: learning rate {rate:.2g} chosen on validation data")
        rows.append((method, trials, study.seeds(method, rate, chosen_seeds)))
    base = study.base()
    entries = _entries(rows, base, resamples, {m.name for m in methods if study.varies(m)})
    first, data = rows[0][2][0], bench.drawn(chosen_seeds[0])
    test, ood = first.evaluations["test"], first.evaluations.get("ood")
    result = Comparison(
        model=bench.base.name,
        task=bench.task.spec.name,
        kind=bench.task.kind,
        metric=test.primary,
        greater_is_better=test.greater_is_better,
        seeds=chosen_seeds,
        steps=config.resolved(methods[0], len(data.train)).steps,
        train_examples=len(data.task.train),
        test_examples=len(test.records),
        resamples=resamples,
        tuned=lr_sweep,
        entries=entries,
        notes=list(data.notes),
        draws=bench.task.spec.draw == "seed",
        ood_metric=ood.primary if ood else None,
        ood_greater_is_better=ood.greater_is_better if ood else True,
        base={name: found.value for name, found in base.items()},
    )
    _write(result, out)
    return result


@dataclass(frozen=True)
class _Study:
    """Where runs go and what they share."""

    bench: Bench
    kept: Path
    config: TrainingConfig
    reporter: Reporter

    def sweep(self, method: Method, rate: float, steps: int | None) -> RateTrial:
        """One rate on validation data."""
        change = {"learning_rate": rate, "seed": SWEEP_SEED, "steps": steps or self.config.steps}
        folder = self._folder(method) / f"sweep-{rate:.3g}"
        result = run(
            self.bench,
            method,
            self.config.model_copy(update=change),
            out=folder,
            splits=("validation",),
            generate=0,
            reporter=self.reporter,
        )
        evaluation = result.evaluations.get("validation")
        if evaluation is None:
            return RateTrial(rate, float("inf"), None)
        loss = evaluation.metrics.get("loss", evaluation.metrics["token_loss"])
        return RateTrial(rate, loss, evaluation.value)

    def seeds(self, method: Method, rate: float | None, seeds: Sequence[int]) -> list[RunResult]:
        """One run a seed at the chosen rate; what is the same for every seed runs once."""
        distinct = seeds if self.varies(method) else seeds[:1]
        results = []
        for seed in distinct:
            config = self.config.model_copy(update={"learning_rate": rate, "seed": seed})
            shown = config.resolved(method, 1).learning_rate
            folder = self._folder(method) / f"seed-{seed}-lr-{shown:.3g}"
            result = run(self.bench, method, config, out=folder, splits=TESTED, reporter=self.reporter)
            if "test" not in result.evaluations:
                raise DataError(f"{method.name} diverged at learning rate {shown:.3g}: try --lr-sweep")
            test = result.evaluations["test"]
            self.reporter.note(f"{method.name} seed {seed}: {test.primary} {test.value:.4f}")
            results.append(result)
        return results * (len(seeds) // len(distinct))

    def tunes(self, method: Method) -> bool:
        """Whether there is a rate to tune: not for the probe, nor for the frozen base without a head."""
        return method.name != "probe" and (method.name != "none" or bool(self.bench.base.head))

    def varies(self, method: Method) -> bool:
        """Whether runs of the method differ by seed."""
        return self.tunes(method) or (method.name == "probe" and self.bench.task.spec.draw == "seed")

    def base(self) -> dict[str, Evaluation]:
        """The frozen base on the data that are not the task's own; nothing where there are none."""
        splits = [name for name in TESTED[1:] if self.bench.measured_on(name).examples]
        if not splits:
            return {}
        frozen = load_method("none")
        return run(
            self.bench, frozen, self.config, out=self._folder(frozen) / "base", splits=splits
        ).evaluations

    def _folder(self, method: Method) -> Path:
        return self.kept / f"{method.name}-{method.fingerprint().removeprefix('baseline:')[:8]}"


def check_comparison(bench: Bench, methods: Sequence[Method], seeds: Sequence[int], lr_sweep: bool) -> None:
    """Refuse what cannot be compared, before anything runs; see `compare` for the errors."""
    name = bench.task.spec.name
    if len(methods) < 2:
        raise SpecError("a comparison needs two variants or more, separated by commas")
    if not seeds or len(set(seeds)) != len(seeds) or SWEEP_SEED in seeds:
        raise SpecError(f"expected one or more different seeds other than {SWEEP_SEED}")
    seen: dict[str, str] = {}
    for method in methods:
        twin = seen.setdefault(method.fingerprint(), method.name)
        if twin != method.name:
            raise SpecError(f"'{twin}' and '{method.name}' are the same method")
    if len(seen) != len(methods):
        raise SpecError("a variant is named twice")
    if not bench.task.test:
        raise DataError(f"{name} has no test data: give --test FILE, or task.test_fraction=0.2")
    for method in methods:
        count_parameters(bench.base.model, method)
    if lr_sweep and not bench.task.validation:
        raise DataError(f"{name} has no validation data to tune a learning rate on")


def _entries(
    rows: list[tuple[Method, list[RateTrial], list[RunResult]]],
    base: dict[str, Evaluation],
    resamples: int,
    varied: set[str],
) -> list[Entry]:
    """One entry a method, differences to the first corrected for their number; `varied` are those with a spread."""
    reference, weights, _ = as_matrix([r.evaluations["test"] for r in rows[0][2]])
    entries: list[Entry] = []
    for method, trials, runs in rows:
        tests = [r.evaluations["test"] for r in runs]
        values, _, _ = as_matrix(tests)
        per_seed = [t.value for t in tests]
        entries.append(
            Entry(
                name=method.name,
                fingerprint=method.fingerprint(),
                trainable=runs[0].trainable,
                deployed=runs[0].deployed,
                learning_rate=runs[0].learning_rate,
                values=per_seed,
                mean=sum(per_seed) / len(per_seed),
                sd=standard_deviation(per_seed) if method.name in varied else None,
                interval=bootstrap_mean(values, weights, resamples),
                seconds=sum(r.seconds for r in runs) / len(runs),
                metrics={k: sum(t.metrics[k] for t in tests) / len(tests) for k in tests[0].metrics},
                difference=paired_difference(values, reference, weights, resamples) if entries else None,
                ood=_mean_on(runs, "ood", resamples),
                forgetting=_forgetting(runs, base, resamples),
                sweep=trials,
            )
        )
    adjusted = holm([e.difference.p or 0.0 for e in entries if e.difference is not None])
    return [entries[0], *(replace(e, adjusted=p) for e, p in zip(entries[1:], adjusted, strict=True))]


def _mean_on(runs: list[RunResult], split: str, resamples: int) -> Interval | None:
    if split not in runs[0].evaluations:
        return None
    values, weights, _ = as_matrix([r.evaluations[split] for r in runs])
    return bootstrap_mean(values, weights, resamples)


def _forgetting(runs: list[RunResult], base: dict[str, Evaluation], resamples: int) -> Interval | None:
    """How much the loss on unrelated text rose, in nats a token, paired by text."""
    if "unrelated" not in base:
        return None
    after, weights, _ = as_matrix([r.evaluations["unrelated"] for r in runs])
    before, _, _ = as_matrix([base["unrelated"]] * len(runs))
    return paired_difference(after, before, weights, resamples)


def _write(result: Comparison, out: Path) -> None:
    from ctxpeft.analysis.figure import draw
    from ctxpeft.analysis.table import markdown
    from ctxpeft.analysis.transfer import transfer

    if result.base:
        transfer(result).write(out)
    write_text(out / "table.md", markdown(result))
    draw(result, out / "compare.png")
    write_json(out / "compare.json", result.to_dict())
