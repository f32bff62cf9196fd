"""A study on PostgreSQL whose workers are killed and whose server restarts: every trial is accounted for.

    python -m tests.reliability chaos --workers 4

Each worker is the user's command with a folder of its own, as on a machine of its own. Every few seconds one of them is
killed with SIGKILL and started again at once, drawn by chance among those in the midst of a trial if there are any;
meanwhile the server is stopped as by a crash and started again, twice.
"""

from __future__ import annotations

import datetime
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from ctxpeft.search.outcome import Row, rows_of, tried
from ctxpeft.search.storage import load_study
from tests.search.postgres import Server

STUDY = "chaos"
PAUSE_S = (4.0, 9.0)
PATIENCE_S = 1200
SPACE = """
title: Under chaos
anchors: [prefix-tuning-plus, prefix-tuning]
modules:
  - templates:
      matrix:
        placement: outside
        query: {source: [rotated, unrotated], norm: [none, rms]}
        feature_map: [elu, gelu, relu, silu]
        memory: {kind: matrix, per: [query_head, kv_head]}
      prefix: {placement: inside, merge: [compete, compete_length], memory: {kind: slots, count: {low: 2, high: 64}}}
rates: {multipliers: [1, 3], widen: 0}
search: {rung: 0.5, finalists: 0}
training: {steps: 12, batch_size: 4}
"""


@dataclass
class Tally:
    """What was done to a study, and what came of it."""

    workers: int
    kills: int = 0
    in_a_trial: int = 0
    restarts: int = 0
    seconds: float = 0.0
    trials: int = 0
    asked: int = 0
    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    retried_twice: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Worker:
    """The user's command, with a folder of its own."""

    def __init__(self, folder: Path, url: str, trials: int, data: list[str]) -> None:
        folder.mkdir(parents=True)
        (folder / "chaos.yaml").write_text(SPACE, encoding="utf-8")
        self.log = folder / "log"
        self.command = [sys.executable, "-m", "ctxpeft.cli", "search", str(folder / "chaos.yaml"), *data]
        self.command += ["--storage", url, "--study", STUDY, "--out", str(folder / "out")]
        self.command += ["--trials", str(trials)]
        self.owner = folder / "out" / "search.json"
        self.process: subprocess.Popen[bytes] | None = None
        self.started = datetime.datetime.min

    def start(self) -> None:
        self.started = datetime.datetime.now()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return None if self.process is None else self.process.poll()

    def running(self) -> bool:
        return self.process is not None and self.code() is None

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def is_in(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether it runs a trial that it began since it was started."""
        mine = self.owner.is_file() and f'"{trial.user_attrs.get("owner")}"' in self.owner.read_text()
        began = trial.datetime_start
        return mine and trial.state == TrialState.RUNNING and began is not None and began > self.started


def run(
    server: Server,
    folder: Path,
    data: list[str],
    *,
    workers: int,
    trials: int,
    kills: int,
    seed: int = 0,
    pause: tuple[float, float] = PAUSE_S,
) -> Tally:
    """Kill and restart until `kills` are done or all workers have ended, then let them end.

    data: the arguments that name model and data. pause: seconds between two kills, at least and at most.
    """
    choice, tally = random.Random(seed), Tally(workers, asked=trials)
    machines = [Worker(folder / f"worker-{i}", server.url, trials, data) for i in range(workers)]
    began = time.monotonic()
    restarts = {max(1, kills // 3), max(2, 2 * kills // 3)}
    try:
        machines[0].start()
        _until(lambda: bool(_trials(server)), machines[0])
        for machine in machines[1:]:
            machine.start()
        while tally.kills < kills and any(machine.running() for machine in machines):
            time.sleep(choice.uniform(*pause))
            victims = [machine for machine in machines if machine.running()]
            if not victims:
                break
            busy = [machine for machine in victims if any(map(machine.is_in, _trials(server)))]
            victim = choice.choice(busy or victims)
            victim.stop()
            tally.kills += 1
            tally.in_a_trial += any(map(victim.is_in, _trials(server)))
            victim.start()
            if tally.kills in restarts:
                server.stop()
                time.sleep(1)
                server.start()
                tally.restarts += 1
        for machine in machines:
            _end(machine, tally)
    finally:
        for machine in machines:
            if machine.running():
                machine.stop()
    tally.seconds = time.monotonic() - began
    account(_trials(server), tally)
    return tally


def account(trials: list[optuna.trial.FrozenTrial], tally: Tally) -> None:
    """What became of each trial; what does not add up is a fault."""
    rows = rows_of(trials)
    tally.trials, tally.tried = len(rows), len(tried(rows))
    tally.outcomes = Counter(row.outcome for row in rows)
    parents = Counter(parent for t in trials if (parent := _parent(t)) is not None)
    tally.retried, tally.retried_twice = len(parents), sum(count > 1 for count in parents.values())
    tally.reasons = Counter(row.reason for row in rows if row.outcome in ("failed", "infeasible"))
    faults = tally.faults
    faults += [f"trial {row.number} is still running" for row in rows if row.outcome == "running"]
    faults += [f"trial {t.number} is {t.state.name}" for t in trials if not t.state.is_finished()]
    faults += [f"trial {t.number} counts and has no value" for t in trials if _valueless(t)]
    faults += [f"{name} is trained twice" for name in _twice(rows)]
    faults += [
        f"trial {r.number} {r.outcome} and does not say why"
        for r in rows
        if r.outcome in ("failed", "infeasible") and not r.reason
    ]
    if tally.tried < tally.asked:
        faults.append(f"{tally.tried} designs were tried of {tally.asked}")


def _twice(rows: list[Row]) -> list[str]:
    """Designs that count more than once."""
    done = Counter(row.fingerprint for row in rows if row.outcome in ("completed", "pruned"))
    return [fingerprint[:12] for fingerprint, count in done.items() if count > 1]


def _parent(trial: optuna.trial.FrozenTrial) -> int | None:
    """The trial that this one tries again: told by Optuna, which copies what its parent says, else by the search."""
    history = RetryHeartbeatStaleTrialCallback.retry_history(trial)
    found = history[-1] if history else trial.user_attrs.get("retry_of")
    return None if found is None else int(found)


def _valueless(trial: optuna.trial.FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE and trial.values is None


def _trials(server: Server) -> list[optuna.trial.FrozenTrial]:
    try:
        return load_study(server.url, STUDY).get_trials(deepcopy=False)
    except Exception:  # the study is not made yet, or its tables are being made
        return []


def _until(condition: object, machine: Worker) -> None:
    assert callable(condition)
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if machine.code() or time.monotonic() > end:
            raise AssertionError(f"no trial began:\n{machine.log.read_text()[-2000:]}")
        time.sleep(1)


def _end(machine: Worker, tally: Tally) -> None:
    """Wait for a worker; one that ended with an error is run once more, as a user would."""
    for again in (True, False):
        assert machine.process is not None
        code = machine.process.wait(timeout=PATIENCE_S)
        if code == 0:
            return
        if again:
            machine.start()
    tally.faults.append(f"a worker ended with exit code {code}: {machine.log.read_text()[-500:]}")
