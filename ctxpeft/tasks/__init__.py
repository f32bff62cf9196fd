"""Data to prompts to batches to metrics.

spec = load_task("docstring-area")            # or task_from_files(["train.csv"], ["test.csv"])
task = build_task(with_settings(spec, {"limit": 1000}))
encoder = Encoder(tokenizer, task)
evaluate(model, encoder, task.test).metrics
"""

from ctxpeft.tasks._classifier import ClassifierEncoder
from ctxpeft.tasks._collate import Collator, pad_id
from ctxpeft.tasks._encode import Encoded, Encoder
from ctxpeft.tasks._end import can_end
from ctxpeft.tasks._evaluate import evaluate
from ctxpeft.tasks._examples import Example
from ctxpeft.tasks._load import TaskData, build_task, load_task, on_files, task_from_files, with_settings
from ctxpeft.tasks._metrics import Evaluation, Record
from ctxpeft.tasks._scoring import label_scores, naive_scores, token_budget
from ctxpeft.tasks._spec import TaskSpec

__all__ = [
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
    "task_from_files",
    "token_budget",
    "with_settings",
]
