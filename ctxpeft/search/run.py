"""A whole search: open or resume the study, try designs, train the best again, write down what was found."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import optuna

from ctxpeft.errors import CtxpeftError
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.export import best_row, best_variant, write_exports
from ctxpeft.search.finals import Finals, finalists, run_finals
from ctxpeft.search.job import Job
from ctxpeft.search.loop import exhausted, work
from ctxpeft.search.outcome import Row, rows_of
from ctxpeft.search.progress import Progress, Watch, announce, clock
from ctxpeft.search.storage import discard, load_study, open_study, owned, recover
from ctxpeft.search.workers import designs_in_processes, finals_in_processes


@dataclass(frozen=True)
class Found:
    """What a search found. `about` says of what, on what and by which command."""

    rows: list[Row]
    finals: Finals | None
    about: dict[str, Any]
    out: Path

    @property
    def best(self) -> Row | None:
        """The design the search answers with."""
        return best_row(self.rows, self.finals)

    def plain(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        best = self.best
        return {
            "best": best_variant(best, self.about).to_dict() if best else None,
            "value": best.value if best else None,
            "about": self.about,
            "finals": self.finals.plain() if self.finals else None,
            "trials": [row.plain() for row in self.rows],
            "out": self.out,
        }


def search(job: Job, command: Sequence[str] = (), workers: int = 1, fresh: bool = False) -> Found:
    """Run or resume a search to its number of trials, then the finals, and write exports and report.

    Raises:
        SpecError: the study was made for another space, model or task.
        KeyboardInterrupt: everything finished is saved; the same call goes on.
    """
    began = time.monotonic()
    with owned(job.out) as owner:
        if fresh:
            discard(job.out, job.url, job.study)
        announce(f"loading {job.model} and the data")
        laboratory = job.open()
        study = open_study(job.url, job.study, laboratory.describe(), job.space.file.anchors)
        about = about_search(job, laboratory, command)
        study.set_user_attr("about", about)
        study.set_metric_names([f"held-out {job.search.objective}"])  # read by optuna-dashboard
        recover(study, owner)
        watch = Watch()
        total = job.search.trials + len(job.space.file.anchors)
        methods = job.search.finalists + len(job.space.file.anchors) if job.search.finalists else 0
        final_runs = methods * job.search.seeds
        with Progress(total, job.search.objective, watch, workers, final_runs, job.search.rung) as progress:
            progress.resumed(rows_of(study.get_trials(deepcopy=False)))
            if workers > 1:
                designs_in_processes(job, study, owner, workers, progress.show)
            else:
                work(study, laboratory, watch, owner, after=progress.show)
            rows = rows_of(study.get_trials(deepcopy=False))
            if exhausted(rows):
                progress.say("the last designs were all known or infeasible: the space seems used up")
            if workers > 1 and job.search.finalists:
                count = len(finalists(rows, job.search.finalists)) * job.search.seeds
                progress.fresh(f"fresh seeds: {count} full runs in {workers} processes")
                finals_in_processes(job, owner, workers)
            finals = run_finals(laboratory, rows, progress.fresh) if job.search.finalists else None
        study.set_user_attr("finals", finals.plain() if finals else None)
        write_found(job.out, rows, finals, about)
        progress.say(f"{len(rows)} trials in {clock(time.monotonic() - began)}")
    return Found(rows, finals, about, job.out)


def stored(url: str, name: str | None, out: Path) -> Found:
    """What a study holds so far, also while it runs. `name` may be left out where the storage has one study."""
    study = load_study(url, name)
    about = study.user_attrs.get("about")
    if about is None:
        raise CtxpeftError(f"study '{study.study_name}' was not made by ctxpeft search")
    finals = study.user_attrs.get("finals")
    rows = rows_of(study.get_trials(deepcopy=False))
    return Found(rows, Finals.from_plain(finals) if finals else None, about, out)


def write_found(out: Path, rows: list[Row], finals: Finals | None, about: dict[str, Any]) -> None:
    """The exports and the report."""
    from ctxpeft.search.report import write_report

    write_exports(out, rows, finals, about)
    write_report(out / "report.html", rows, finals, about)


def _task_name(job: Job) -> str:
    """The task's name; the folder's where a file is just called `train`."""
    files = job.task.train
    if files and job.task.name == "train" and Path(files[0]).parent.name:
        return Path(files[0]).parent.name
    return job.task.name


def about_search(job: Job, laboratory: Laboratory, command: Sequence[str]) -> dict[str, Any]:
    """What the report says of the search's circumstances."""
    from ctxpeft.training import environment

    target = laboratory.target
    file = job.space.file
    return {
        "space": job.space.name,
        "title": file.title,
        "model": job.model if "/" not in job.model else Path(job.model).name,
        "task": _task_name(job),
        "train_examples": len(laboratory.bench.task.train),
        "validation_examples": len(laboratory.bench.task.validation),
        "test_examples": len(laboratory.bench.task.test),
        "steps": laboratory.steps,
        "input_tokens": median(len(example) for example in laboratory.bench.train),
        "gqa": laboratory.bench.base.gqa,
        "batch_size": laboratory.config.batch_size * laboratory.config.gradient_accumulation,
        "rung_steps": laboratory.rung_steps,
        "keep": job.search.keep,
        "objective": job.search.objective,
        "guide": job.search.guide,
        "seed": job.search.seed,
        "trials": job.search.trials,
        "budget": target.parameters if target else None,
        "tolerance": target.tolerance if target else None,
        "study": job.study,
        "command": shlex.join(command),
        "optuna": optuna.__version__,
        "environment": environment(),
    }
