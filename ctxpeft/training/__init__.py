"""Training with the stock transformers Trainer.

bench = prepare(load_base("ctxpeft-mini"), build_task(load_task("docstring-area")))
result = run(bench, "prefix-tuning-plus", TrainingConfig(steps=250, learning_rate=3e-3, seed=0))
result.evaluations["test"].metrics
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxpeft.lazy import lazily

if TYPE_CHECKING:
    from ctxpeft.training._base import MINI, Base, gqa_of, load_base, source_of
    from ctxpeft.training._baselines import BASELINES
    from ctxpeft.training._bench import Bench, Elsewhere, encoder_for, prepare
    from ctxpeft.training._beside import run_beside, why_apart
    from ctxpeft.training._config import TrainingConfig
    from ctxpeft.training._folder import InUseError, RunFolder, config_hash, environment
    from ctxpeft.training._head import load_head
    from ctxpeft.training._methods import Method, VariantLike, count_parameters, load_method
    from ctxpeft.training._order import OrderedExamples
    from ctxpeft.training._reproduce import Reproduction, check_reproducible, reproduce
    from ctxpeft.training._result import HeldOut, RunResult
    from ctxpeft.training._run import SPLITS, resolve, run
    from ctxpeft.training._together import Member, Together
    from ctxpeft.training.progress import ConsoleReporter, Reporter, Silent

_WHERE = {
    "BASELINES": "_baselines",
    "Base": "_base",
    "Bench": "_bench",
    "ConsoleReporter": "progress",
    "Elsewhere": "_bench",
    "HeldOut": "_result",
    "InUseError": "_folder",
    "MINI": "_base",
    "Member": "_together",
    "Method": "_methods",
    "OrderedExamples": "_order",
    "Reporter": "progress",
    "Reproduction": "_reproduce",
    "RunFolder": "_folder",
    "RunResult": "_result",
    "SPLITS": "_run",
    "Silent": "progress",
    "Together": "_together",
    "TrainingConfig": "_config",
    "VariantLike": "_methods",
    "check_reproducible": "_reproduce",
    "config_hash": "_folder",
    "count_parameters": "_methods",
    "encoder_for": "_bench",
    "environment": "_folder",
    "gqa_of": "_base",
    "load_base": "_base",
    "load_head": "_head",
    "load_method": "_methods",
    "prepare": "_bench",
    "reproduce": "_reproduce",
    "resolve": "_run",
    "run": "_run",
    "run_beside": "_beside",
    "source_of": "_base",
    "why_apart": "_beside",
}
__all__ = [
    "BASELINES",
    "MINI",
    "SPLITS",
    "Base",
    "Bench",
    "ConsoleReporter",
    "Elsewhere",
    "HeldOut",
    "InUseError",
    "Member",
    "Method",
    "OrderedExamples",
    "Reporter",
    "Reproduction",
    "RunFolder",
    "RunResult",
    "Silent",
    "Together",
    "TrainingConfig",
    "VariantLike",
    "check_reproducible",
    "config_hash",
    "count_parameters",
    "encoder_for",
    "environment",
    "gqa_of",
    "load_base",
    "load_head",
    "load_method",
    "prepare",
    "reproduce",
    "resolve",
    "run",
    "run_beside",
    "source_of",
    "why_apart",
]

__getattr__ = lazily(__name__, _WHERE)
