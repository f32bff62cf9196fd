"""From a name, a file or flags to a task, and from a task to its examples."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ctxpeft.errors import DataError, SpecError, did_you_mean
from ctxpeft.files import expanded
from ctxpeft.spec.explain import spec_error
from ctxpeft.spec.yaml_lines import Document, read_yaml
from ctxpeft.tasks._columns import Kind
from ctxpeft.tasks._example import Example
from ctxpeft.tasks._examples import Reader
from ctxpeft.tasks._files import read_rows
from ctxpeft.tasks._hub import hub_rows
from ctxpeft.tasks._labels import check_labels
from ctxpeft.tasks._spec import TaskSpec
from ctxpeft.tasks._split import hold_out, some_prompts, subsample, without
from ctxpeft.tasks._view import Examples

_FILE_KEYS = ("train", "validation", "test", "ood")
ANSWERS = {
    "metrics",
    "stop",
    "new_tokens",
    "head",
    "pooling",
}  # what decides how answers are written and judged
SPLIT_NAMES = (*_FILE_KEYS, "valid", "dev", "data")
Source = str | os.PathLike[str] | Mapping[str, Any] | TaskSpec


@dataclass(frozen=True)
class TaskData:
    """A task with its examples; `labels` is empty unless the kind is classification."""

    spec: TaskSpec
    kind: Kind
    template: str
    labels: tuple[str, ...]
    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    ood: Sequence[Example]
    notes: tuple[str, ...] = ()

    def drawn(self, seed: int) -> TaskData:
        """The task as a run of this seed trains on it: with `draw: seed`, that many examples drawn by the seed.

        Any other task is itself.
        """
        if self.spec.draw != "seed":
            return self
        spec = self.spec.model_copy(update={"draw": seed})
        train = subsample(self.train, spec.limit, spec.per_class, seed)
        return replace(self, spec=spec, train=train, notes=(*self.notes, *_scarce(self, train)))

    def split(self, name: str) -> Sequence[Example]:
        """The examples of `train`, `validation`, `test` or `ood`."""
        return {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
            "ood": self.ood,
        }[name]

    def prompt_spec(self) -> dict[str, Any]:
        """What an adapter was trained to answer, without the data: a task to which `test` files can be added."""
        kept = {
            "name",
            "columns",
            "label_words",
            "label_names",
            "separator",
            "max_length",
            "generate_limit",
            *ANSWERS,
        }
        data = self.spec.model_dump(mode="json", include=kept, exclude_defaults=True)
        labels = {"labels": list(self.labels)} if self.labels else {}
        return data | {"kind": self.kind, "template": self.template} | labels

    def digest(self) -> str:
        """See `_digest`; computed once."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        """SHA-256 of everything that decides a result: the examples of every split, in order, and the prompt.

        Paths do not enter: the same data elsewhere is the same task. Under `draw: seed` the runs' own draws enter
        by `drawn`.
        """
        spec = self.spec.model_dump(mode="json", include={"label_words", "max_length", "generate_limit"})
        spec |= self.spec.model_dump(mode="json", include=ANSWERS, exclude_defaults=True)
        spec |= {"kind": self.kind, "template": self.template, "labels": self.labels}
        digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
        for name in _FILE_KEYS:
            digest.update(f"\n{name}:".encode())
            for example in self.split(name):
                digest.update(example.id.encode())
        return digest.hexdigest()


def load_task(source: Source) -> TaskSpec:
    """A shipped task's name, a YAML file, `hub:<dataset id>`, a dictionary or a `TaskSpec`.

    Files named in a YAML file are relative to it; `$NAME` in them stands for an environment variable. With
    `extends: NAME` it begins as another task, a shipped one or a file beside it.

    Raises:
        SpecError: an unknown name (the nearest is given), or a file or dictionary that is no task.
    """
    if isinstance(source, TaskSpec):
        return source
    if isinstance(source, Mapping):
        return _validated(Document(dict(source), {}, "task"))
    text = os.fspath(source)
    if text.startswith("hub:"):
        return TaskSpec.model_validate({"name": text[4:].replace("/", "--"), "hub": {"id": text[4:]}})
    path = Path(text)
    if path.is_dir() and (path / "task.yaml").is_file():
        path = path / "task.yaml"
    if not path.is_file():
        path = _shipped(text)
    return _validated(_read(path))


def _read(path: Path, above: tuple[Path, ...] = ()) -> Document:
    """A task file, with what it extends."""
    document = read_yaml(path)
    if not isinstance(document.data, dict):
        return document
    document.data.setdefault("name", path.parent.name if path.name == "task.yaml" else path.stem)
    for key in _FILE_KEYS:
        if key in document.data:
            document.data[key] = _beside(document, path.parent, key)
    parent = document.data.pop("extends", None)
    if parent is None:
        return document
    here = path.parent / str(parent)
    source = here if here.is_file() else _shipped(str(parent))
    if source in (*above, path):
        raise DataError(f"{path}: extends itself by way of {source.name}")
    inherited = _read(source, (*above, path)).data
    if isinstance(inherited, dict):
        document.data.update({k: v for k, v in inherited.items() if k not in document.data})
    return document


def task_from_files(train: Sequence[str], test: Sequence[str] = (), name: str | None = None) -> TaskSpec:
    """A task from `--data` and `--test`; several files are joined. `trec/train.csv` is called `trec`."""
    first = Path((train or test)[0]).absolute()
    stem = first.parent.name if first.stem in SPLIT_NAMES and first.parent.name else first.stem
    return _validated(Document({"name": name or stem, "train": list(train), "test": list(test)}, {}, "task"))


def on_files(spec: TaskSpec, train: Sequence[str], test: Sequence[str] = ()) -> TaskSpec:
    """The task on data of one's own: prompt, labels and metrics stay, every file and the hub go."""
    data = {k: v for k, v in spec.model_dump().items() if k not in (*_FILE_KEYS, "hub")}
    return _validated(Document({**data, "train": list(train), "test": list(test)}, {}, "task"))


def with_settings(spec: TaskSpec, settings: Mapping[str, Any]) -> TaskSpec:
    """`spec` with top-level or dotted (`columns.text`) keys replaced.

    Raises:
        SpecError: an unknown key or a value of the wrong type.
    """
    data = spec.model_dump()
    for key, value in settings.items():
        head, _, rest = key.partition(".")
        if rest:
            data[head] = {**(data.get(head) or {}), rest: value}
        else:
            data[head] = value
    return _validated(Document(data, {}, "task"))


def build_task(spec: TaskSpec) -> TaskData:
    """Read every file of `spec`, split, remove leaks, subsample.

    Texts that also occur in validation, test or ood data are removed from training, and test texts from
    validation, each with a count in the notes.

    Raises:
        DataError: see `read_rows`, `Reader.read` and `check_labels`; or nothing is left to train on.
    """
    reader = Reader(spec)
    splits = {name: _examples(reader, spec, name) for name in _FILE_KEYS}
    notes = reader.notes
    kind = reader.kind or "classification"
    train, validation, test, ood = (splits[name] for name in _FILE_KEYS)
    labels = check_labels(spec, splits) if kind == "classification" else ()
    if spec.unseen:
        others = (train, validation, test)
        ood = Examples.joined([ood, *(rows.chosen(rows.unseen()) for rows in others)])
        train, validation, test = (rows.chosen(~rows.unseen()) for rows in others)
        if not ood:
            raise DataError(f"{spec.name}: no row has one of the values of `unseen`")
    if spec.test_fraction and not test:
        train, test = hold_out(train, spec.test_fraction, "test")
    for name, held in (("test", test), ("ood", ood), ("validation", validation)):
        train, removed = without(train, held)
        if removed:
            notes.append(f"{removed} training examples whose text is also in the {name} data were removed")
    if validation:
        validation, removed = without(validation, Examples.joined([test, ood]))
        if removed:
            notes.append(f"{removed} validation examples whose text is also in the test data were removed")
    elif len(train) > 1:
        most = spec.validation_limit or len(train)
        train, validation = hold_out(train, min(spec.validation_fraction, most / len(train)))
    if not train and splits["train"]:
        raise DataError(
            f"no training example is left: all {len(splits['train'])} texts are also in held-out data"
        )
    some = some_prompts if spec.metrics else subsample
    data = TaskData(
        spec=replace_kind(spec, kind),
        kind=kind,
        template=reader.template(),
        labels=labels,
        train=train,
        validation=some(validation, spec.validation_limit),
        test=some(test, spec.test_limit),
        ood=some(ood, spec.test_limit),
        notes=tuple(notes),
    )
    if spec.draw == "seed":
        return data
    train = subsample(train, spec.limit, spec.per_class, spec.draw)
    return replace(data, train=train, notes=(*data.notes, *_scarce(data, train)))


def _scarce(data: TaskData, train: Sequence[Example]) -> list[str]:
    """A note where a class has fewer training examples than asked for."""
    wanted = data.spec.per_class
    if not wanted or data.kind != "classification":
        return []
    counts = Counter(example.target for example in train)
    short = [label for label in data.labels if counts[label] < wanted]
    return [f"fewer than {wanted} training examples of {', '.join(short[:5])}"] if short else []


def replace_kind(spec: TaskSpec, kind: Kind) -> TaskSpec:
    """`spec` with its kind settled."""
    return spec.model_copy(update={"kind": kind})


def cut(data: TaskData, **limits: int) -> TaskData:
    """`data` with the first n examples of the named splits."""
    return replace(data, **{name: data.split(name)[:n] for name, n in limits.items()})  # type: ignore[arg-type]


def _examples(reader: Reader, spec: TaskSpec, name: str) -> Examples:
    if spec.hub:
        split = {"train": spec.hub.train, "validation": spec.hub.validation, "test": spec.hub.test}.get(name)
        found = [reader.read(hub_rows(spec.hub, split))] if split else []
    else:
        found = [reader.read(read_rows(file)) for file in getattr(spec, name)]
    return Examples.joined([Examples(reader.store, 0, 0), *found])


def _validated(document: Document) -> TaskSpec:
    if not isinstance(document.data, dict):
        raise DataError(f"{document.name}: expected a mapping with 'train' and so on")
    try:
        return TaskSpec.model_validate(document.data)
    except ValidationError as error:
        raise spec_error(error, document, TaskSpec) from None


def _beside(document: Document, folder: Path, key: str) -> Any:
    files = document.data[key]
    if not isinstance(files, str | list):
        return files
    return [_path(document, folder, key, f) for f in ([files] if isinstance(files, str) else files)]


def _path(document: Document, folder: Path, key: str, file: Any) -> Any:
    if not isinstance(file, str):
        return file
    filled = str(expanded(file))
    if "$" in filled and not (folder / filled).exists():
        raise SpecError(
            f"{document.name}:{document.line((key,))}: {key}: '{file}' names an environment variable that is not set"
        )
    return str(folder / filled)


def _shipped(name: str) -> Path:
    import ctxpeft.data

    names = [*ctxpeft.data.task_names(), *ctxpeft.data.protocol_names()]
    if name in ctxpeft.data.task_names():
        return Path(ctxpeft.data.task_path(name)) / "task.yaml"
    if name in names:
        return Path(ctxpeft.data.protocol_path(name))
    hint = did_you_mean(name, names, "ctxpeft ls tasks")
    raise DataError(f"no task file and no shipped task '{name}'{hint}")
