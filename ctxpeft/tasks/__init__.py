"""Data to prompts to batches to metrics.

spec = load_task("docstring-area")            # or task_from_files(["train.csv"], ["test.csv"])
task = build_task(with_settings(spec, {"limit": 1000}))
encoder = Encoder(tokenizer, task)
evaluate(model, encoder, task.test).metrics
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxpeft.lazy import lazily

if TYPE_CHECKING:
    from ctxpeft.tasks._answers import Answers, takes_answers_alone
    from ctxpeft.tasks._classifier import ClassifierEncoder
    from ctxpeft.tasks._collate import Collator, pad_id
    from ctxpeft.tasks._encode import Encoded, Encoder
    from ctxpeft.tasks._end import can_end
    from ctxpeft.tasks._evaluate import evaluate
    from ctxpeft.tasks._example import Example
    from ctxpeft.tasks._load import TaskData, build_task, load_task, on_files, task_from_files, with_settings
    from ctxpeft.tasks._metrics import Evaluation, Record
    from ctxpeft.tasks._scoring import label_scores, naive_scores, token_budget
    from ctxpeft.tasks._spec import TaskSpec

_WHERE = {
    "Answers": "_answers",
    "ClassifierEncoder": "_classifier",
    "Collator": "_collate",
    "Encoded": "_encode",
    "Encoder": "_encode",
    "Evaluation": "_metrics",
    "Example": "_example",
    "Record": "_metrics",
    "TaskData": "_load",
    "TaskSpec": "_spec",
    "build_task": "_load",
    "can_end": "_end",
    "evaluate": "_evaluate",
    "label_scores": "_scoring",
    "load_task": "_load",
    "naive_scores": "_scoring",
    "on_files": "_load",
    "pad_id": "_collate",
    "takes_answers_alone": "_answers",
    "task_from_files": "_load",
    "token_budget": "_scoring",
    "with_settings": "_load",
}
__all__ = [
    "Answers",
    "ClassifierEncoder",
    "Collator",
    "Encoded",
    "Encoder",
    "Evaluation",
    "Example",
    "Record",
    "TaskData",
    "TaskSpec",
    "build_task",
    "can_end",
    "evaluate",
    "label_scores",
    "load_task",
    "naive_scores",
    "on_files",
    "pad_id",
    "takes_answers_alone",
    "task_from_files",
    "token_budget",
    "with_settings",
]

__getattr__ = lazily(__name__, _WHERE)
