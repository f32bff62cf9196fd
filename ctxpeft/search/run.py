"""A whole search: open or resume the study, try designs, train the best again, write down what was found."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from ctxpeft.errors import SpecError
from ctxpeft.search.anchors import in_words
from ctxpeft.search.archive import Archive, archive_of
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.disk import room_needed
from ctxpeft.search.expected import RETUNED
from ctxpeft.search.export import best_row, best_variant, write_exports
from ctxpeft.search.finals import Finals
from ctxpeft.search.fresh import decided_by, fresh_runs
from ctxpeft.search.impossible import why_impossible
from ctxpeft.search.job import Job
from ctxpeft.search.kept import kept
from ctxpeft.search.loop import exhausted, work
from ctxpeft.search.measures import TITLE
from ctxpeft.search.outcome import Row, rows_of
from ctxpeft.search.progress import Progress, Watch, announce, clock
from ctxpeft.search.storage import check_archive, discard, load_study, open_study, owned, recover
from ctxpeft.search.verdicts import run_finals
from ctxpeft.search.workers import designs_in_processes, finals_in_processes
from ctxpeft.tasks import TaskSpec

DECIDED_BY = "finals_of"  # the study's attribute beside `finals`
SIZES = ("train_examples", "validation_examples", "test_examples")


@dataclass(frozen=True)
class Found:
    """What a search found, and where its files are."""

    archive: Archive
    out: Path

    @property
    def rows(self) -> list[Row]:
        """Its trials."""
        return self.archive.rows

    @property
    def finals(self) -> Finals | None:
        """What the fresh seeds said."""
        return self.archive.finals

    @property
    def about(self) -> dict[str, Any]:
        """Of what, on what and by which command."""
        return self.archive.about

    @property
    def best(self) -> Row | None:
        """The design the search answers with."""
        return best_row(self.rows, self.finals)

    def plain(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        best = self.best
        return {
            "best": best_variant(best, self.about, self.finals).to_dict() if best else None,
            "value": best.value if best else None,
            "about": self.about,
            "finals": self.finals.plain() if self.finals else None,
            "trials": [row.plain() for row in self.rows],
            "out": self.out,
        }


def search(
    job: Job,
    command: Sequence[str] = (),
    workers: int = 1,
    fresh: bool = False,
    begin: Archive | None = None,
) -> Found:
    """Run or resume a search to its number of trials, then the finals, and write exports and report.

    Args:
        job: what is searched.
        command: how it was called, for the report.
        workers: processes.
        fresh: discard what the folder and the study hold, once everything that is asked has been checked.
        begin: an archive whose trials an empty study begins with.

    Raises:
        CtxpeftError: `fresh`, while another worker trains a design of the study; or another command discards it.
        SpecError: the study was made for another space, model or task, or is not the archive's; or no design of the
            space is feasible, after what was found is written down.
        KeyboardInterrupt: everything finished is saved; the same call goes on.
    """
    began, anchors = time.monotonic(), job.space.file.anchors
    with room_needed(job.out), owned(job.out) as owner:
        laboratory, study = _opened(job, owner, fresh, begin)
        with kept(study) as check:
            study.set_user_attr("references", laboratory.refer(study.user_attrs.get("references")))
            about = about_search(job, laboratory, command)
            study.set_user_attr("about", about)
            study.set_metric_names(
                [TITLE[name] for name in job.search.objectives]
            )  # what optuna-dashboard writes
            recover(study, owner, alone=job.storage is None)
            watch = Watch()
            total = job.search.trials + len(anchors)
            methods = job.search.finalists + len(anchors) if job.search.finalists else 0
            runs_each = job.search.seeds + round(RETUNED * job.search.retune)
            first, finals_each = job.search.objectives[0], methods * runs_each
            shape = finals_each, job.search.rungs, job.search.keep, len(anchors)
            with Progress(total, first, watch, workers, *shape) as progress:
                progress.resumed(rows_of(study.get_trials(deepcopy=False)))
                if workers > 1:
                    designs_in_processes(job, study, owner, workers, progress.show)
                else:
                    work(study, laboratory, watch, owner, after=progress.show)
                rows = rows_of(study.get_trials(deepcopy=False))
                never = why_impossible(job.space.name, rows)
                if exhausted(rows) and not never:
                    progress.say("the last designs were all known or infeasible: the space seems used up")
                fresh_seeds = bool(job.search.finalists) and not never
                finals = _finals(job, laboratory, study, owner, workers, progress) if fresh_seeds else None
            check()
            study.set_user_attr("finals", finals.plain() if finals else None)
            study.set_user_attr(DECIDED_BY, decided_by(laboratory, rows) if fresh_seeds else None)
            found = Found(archive_of(study), job.out)
            write_found(found)
            progress.say(f"{len(rows)} trials in {clock(time.monotonic() - began)}")
            if never:
                raise SpecError(f"{never}; the anchors' trials are kept in {job.out}")
    return found


def _opened(job: Job, owner: str, fresh: bool, begin: Archive | None) -> tuple[Laboratory, optuna.Study]:
    """The model with the data and the study; what `fresh` discards goes when all that can be wrong has been checked."""
    announce(f"loading {job.model} and the data")
    laboratory = job.open()
    for task, bench in laboratory.benches.items():
        for note in bench.notes:
            announce(f"note: {task}: {note}")
    for name in job.space.file.anchors:
        announce(in_words(laboratory.anchor(name)))
    described, objectives = laboratory.describe(), len(job.search.objectives)
    if begin is not None:
        check_archive(begin, described, objectives)
    if fresh:
        discard(job.out, job.url, job.study, (owner, None) if job.storage is None else (owner,))
    study = open_study(job.url, job.study, described, job.space.file.anchors, begin, objectives)
    return laboratory, study


def _finals(
    job: Job, laboratory: Laboratory, study: optuna.Study, owner: str, workers: int, progress: Progress
) -> Finals | None:
    """What the fresh seeds say: read from the study where it holds that already, else trained."""
    rows = rows_of(study.get_trials(deepcopy=False))
    if study.user_attrs.get(DECIDED_BY) == decided_by(laboratory, rows):
        progress.fresh("fresh seeds: their results are in the study")
        known = study.user_attrs.get("finals")
        return Finals.from_plain(known) if known else None
    if workers > 1:
        count = len(list(fresh_runs(laboratory, rows)))
        progress.fresh(f"fresh seeds: {count} full runs in {workers} processes")
        finals_in_processes(job, owner, workers)
    return run_finals(laboratory, rows, progress.fresh)


def stored(url: str, name: str | None, out: Path) -> Found:
    """What a study holds so far, also while it runs. `name` may be left out where the storage has one study."""
    return Found(archive_of(load_study(url, name)), out)


def write_found(found: Found) -> None:
    """The exports and the report."""
    from ctxpeft.search.report import write_report

    write_exports(found.out, found.archive)
    write_report(found.out / "report.html", found.rows, found.finals, found.about)


def _task_name(task: TaskSpec) -> str:
    """The task's name; the folder's where a file is just called `train`."""
    if task.train and task.name == "train" and Path(task.train[0]).parent.name:
        return Path(task.train[0]).parent.name
    return task.name


def _about_tasks(job: Job, laboratory: Laboratory) -> list[dict[str, Any]]:
    """Each task's data, length of runs and reference."""
    listed = []
    for spec, (name, bench) in zip(job.tasks, laboratory.benches.items(), strict=True):
        listed.append(
            {
                "name": _task_name(spec),
                "key": name,
                "kind": bench.task.kind,
                "train_examples": len(bench.task.train),
                "validation_examples": len(bench.task.validation),
                "test_examples": len(bench.task.test),
                "steps": laboratory.steps(name),
                "rung_steps": laboratory.rung_steps(name),
                "tokens": laboratory.tokens(name, laboratory.steps(name)),
                "rung_tokens": laboratory.tokens(name, laboratory.rung_steps(name)),
                "notes": list(bench.notes),
                "reference": laboratory.references[name] if laboratory.references else None,
            }
        )
    return listed


def about_search(job: Job, laboratory: Laboratory, command: Sequence[str]) -> dict[str, Any]:
    """What the report says of the search's circumstances."""
    from ctxpeft.training import environment

    target = laboratory.target
    file = job.space.file
    tasks = _about_tasks(job, laboratory)
    return {
        "space": job.space.name,
        "title": file.title,
        "model": job.model if "/" not in job.model else Path(job.model).name,
        "task": ", ".join(task["name"] for task in tasks),
        "tasks": tasks,
        **{key: sum(task[key] for task in tasks) for key in SIZES},
        "steps": tasks[0]["steps"],
        "input_tokens": laboratory.facts.input_length,
        "gqa": laboratory.facts.gqa,
        "query_scale": laboratory.facts.query_scale,
        "batch_size": laboratory.config.batch_size * laboratory.config.gradient_accumulation,
        "rung_steps": tasks[0]["rung_steps"],
        "keep": job.search.keep,
        "objective": job.search.objectives[0],
        "objectives": list(job.search.objectives),
        "constraints": dict(job.search.constraints),
        "rungs": list(job.search.rungs),
        "rates": file.rates.model_dump(mode="json"),
        "retune": job.search.retune,
        "sampler": job.search.sampler,
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
