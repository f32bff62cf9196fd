"""What `train`, `eval` and `compare` share: from flags and settings to a task, a configuration and a model.

Settings, names and the task are checked without torch; whatever returns a method, a base or a bench imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ctxpeft.cli._overrides import parse_overrides, place_overrides, set_path
from ctxpeft.errors import SpecError
from ctxpeft.shipped import variant_path
from ctxpeft.spec.explain import spec_error
from ctxpeft.spec.yaml_lines import Document, read_yaml

if TYPE_CHECKING:
    from ctxpeft.tasks import TaskData, TaskSpec
    from ctxpeft.training import Base, Bench, Method, TrainingConfig

_ALIASES = {"lr": "learning_rate"}
SAMPLE = 2000  # training examples whose lengths a plan tells
_MODEL_KEYS = ("dtype", "device")
UNRELATED_TEXTS = 200


@dataclass(frozen=True)
class Settings:
    """The `key=value` settings of a command, by section."""

    training: Mapping[str, Any]
    task: Mapping[str, Any]
    model: Mapping[str, Any]
    variant: Mapping[str, Any]


def read_settings(overrides: Sequence[str] | None) -> Settings:
    """Sort settings into sections; bare keys belong to training, task or model in that order.

    Raises:
        SpecError: an unknown key, with the nearest valid one.
    """
    from ctxpeft.tasks import TaskSpec
    from ctxpeft.training import TrainingConfig

    pairs = [(_ALIASES.get(key, key), value) for key, value in parse_overrides(overrides or [])]
    sections = {
        "training": TrainingConfig.model_fields,
        "task": TaskSpec.model_fields,
        "model": _MODEL_KEYS,
    }
    placed = place_overrides(pairs, sections, free=("variant",))
    return Settings(**placed)


def training_config(settings: Settings, **fixed: Any) -> TrainingConfig:
    """The training configuration; `fixed` wins over settings.

    Raises:
        SpecError: a value of the wrong type or range.
    """
    from ctxpeft.training import TrainingConfig

    data = {**settings.training, **fixed}
    try:
        return TrainingConfig.model_validate(data)
    except ValidationError as error:
        raise spec_error(error, Document(data, {}, "training"), TrainingConfig) from None


def task_spec(
    task: str | None, data: Sequence[str] | None, test: Sequence[str] | None, settings: Settings
) -> TaskSpec:
    """The task of `--task`, of `--data` and `--test`, or the first on the files of the others, with its settings.

    Raises:
        SpecError: neither is given, or the settings do not fit.
    """
    from ctxpeft.tasks import load_task, on_files, task_from_files, with_settings

    if test and not data:
        raise SpecError("--test belongs to --data; a task names its own test data (or set task.test=FILE)")
    if not task and not data:
        raise SpecError("no data: give --task NAME (docstring-area ships with ctxpeft) or --data FILE")
    files = list(data or []), list(test or [])
    if task is None:
        return with_settings(task_from_files(*files), settings.task)
    spec = load_task(task)
    return with_settings(on_files(spec, *files) if data else spec, settings.task)


def evaluation_spec(
    task: str | None, data: Sequence[str] | None, adapter: Path | None, settings: Settings
) -> TaskSpec:
    """The task to evaluate on: `--task`, or `--data` with its prompt or that which the adapter was trained with.

    Raises:
        SpecError: see `task_spec`.
    """
    from ctxpeft.tasks import load_task, on_files, task_from_files, with_settings

    if task or not data:
        spec = task_spec(task, None, None, settings)
        return on_files(spec, [], data) if data else spec
    written = adapter / "task.yaml" if adapter else None
    if written is None or not written.is_file():
        return with_settings(task_from_files([], list(data)), settings.task)
    trained = read_yaml(written).data
    if not isinstance(trained, dict):
        raise SpecError(f"{written}: expected a mapping, as ctxpeft train writes it")
    return with_settings(load_task({**trained, "test": list(data)}), settings.task)


def check_variant_name(source: str) -> None:
    """Whether there is such a variant or baseline, and whether its file is YAML; imports no torch.

    Raises:
        SpecError: no such name, with the nearest; no such file; a file that is no YAML.
    """
    from ctxpeft.training import BASELINES

    if source not in BASELINES and not (path := variant_path(source, BASELINES)).is_dir():
        read_yaml(path)


def changed_variant(source: str, settings: Settings) -> Method:
    """The variant with the `variant.` settings applied.

    Raises:
        SpecError: see `load_method`; or a setting for a baseline, which has none.
    """
    from ctxpeft.spec.load import load_variant
    from ctxpeft.training import load_method

    method = load_method(source)
    if not settings.variant:
        return method
    if method.variant is None:
        raise SpecError(f"the baseline '{source}' has no settings")
    tree = method.variant.to_dict()
    for key, value in settings.variant.items():
        set_path(tree, key, value)
    return load_method(load_variant(tree))


def open_base(model: str, settings: Settings, data: TaskData | None = None) -> Base:
    """Load the model with its `dtype` and `device`, and with a head where the task asks for one.

    Raises:
        HostError: see `load_base`.
    """
    from ctxpeft.training import load_base

    if data is None or data.spec.head == "label":
        return load_base(model, **settings.model)
    return load_base(model, classes=len(data.labels), pooling=data.spec.pooling, **settings.model)


def open_bench(
    model: str,
    spec: TaskSpec,
    settings: Settings,
    ood: str | None = None,
    unrelated: Sequence[str] | None = None,
) -> Bench:
    """Read the data first, since it fails fast, then load the model and encode.

    ood: another task, or a file that is asked with this task's prompt. unrelated: files of text.
    """
    from ctxpeft.tasks import build_task
    from ctxpeft.training import prepare

    data = build_task(spec)
    elsewhere = {"ood": _asked_likewise(data, ood)} if ood else {}
    if unrelated:
        elsewhere["unrelated"] = _texts(data, unrelated)
    return prepare(open_base(model, settings, data), data, elsewhere)


def _asked_likewise(data: TaskData, source: str) -> TaskData:
    """A task by name or file; a data file gets the prompt of `data`, and its labels where they are all among them."""
    from ctxpeft.tasks import build_task, load_task
    from ctxpeft.tasks._files import SUFFIXES

    if not source.lower().endswith(SUFFIXES):
        return build_task(load_task(source))
    prompt = {**data.prompt_spec(), "name": Path(source).stem, "test": [source]}
    own = build_task(load_task({k: v for k, v in prompt.items() if k not in ("labels", "label_words")}))
    return build_task(load_task(prompt)) if set(own.labels) <= set(data.labels) else own


def _texts(data: TaskData, files: Sequence[str]) -> TaskData:
    """Text to measure forgetting on, in windows as long as the task's own examples may be."""
    from ctxpeft.tasks import build_task, load_task

    spec = {
        "name": "unrelated",
        "kind": "language_modelling",
        "test": list(files),
        "test_limit": UNRELATED_TEXTS,
    }
    return build_task(load_task({**spec, "max_length": data.spec.max_length}))


def task_facts(bench: Bench) -> dict[str, Any]:
    """What a plan says about the data: sizes, labels, lengths in tokens (of about SAMPLE training examples, evenly
    spaced, where there are more than twice as many), one example as the model sees it.

    A label of many tokens has to be learned as a spelling and costs time to score: `label_words` shortens it.
    """
    task = bench.task
    some = range(0, len(bench.train), max(1, len(bench.train) // SAMPLE))
    lengths = sorted(len(bench.train[i]) for i in some)
    facts: dict[str, Any] = {
        "task": task.spec.name,
        "kind": task.kind,
        "train": len(task.train),
        "validation": len(task.validation),
        "test": len(task.test),
        "ood": len(task.ood),
        "labels": list(task.labels),
        "notes": list(bench.notes),
    }
    if written := sorted(map(len, bench.encoder.label_ids.values())):
        facts["label_tokens"] = {"shortest": written[0], "longest": written[-1]}
    if bench.train:
        decode = bench.base.tokenizer.decode
        facts["tokens"] = {"median": lengths[len(lengths) // 2], "longest": lengths[-1]}
        facts["example"] = {"prompt": decode(bench.train[0].prompt), "answer": decode(bench.train[0].answer)}
    return facts
