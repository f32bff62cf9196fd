"""Datasets of the Hugging Face hub as rows, through the optional `datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ctxpeft.errors import DataError, did_you_mean
from ctxpeft.tasks._files import Row
from ctxpeft.tasks._spec import Hub


def hub_rows(hub: Hub, split: str) -> Iterator[Row]:
    """The rows of one split, columns renamed; class-label numbers come as their names, several joined by commas.

    Raises:
        DataError: `datasets` is not installed, or the dataset, its configuration or the split cannot be had.
    """
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"hub dataset '{hub.id}' needs the package datasets: pip install 'ctxpeft[data]'"
        ) from None
    try:
        loaded: Any = datasets.load_dataset(hub.id, hub.config, revision=hub.revision)
    except Exception as error:  # the hub client raises many types, all of them "cannot be had"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"hub dataset '{hub.id}' cannot be loaded: {reason}") from None
    if split not in loaded:
        raise DataError(f"hub dataset '{hub.id}' has no split '{split}'{did_you_mean(split, loaded)}")
    features = loaded[split].features
    for name in hub.rename:
        if name not in features:
            raise DataError(f"hub dataset '{hub.id}' has no column '{name}'{did_you_mean(name, features)}")
    named = {name: label for name, f in features.items() if (label := _class_label(f)) is not None}
    for number, record in enumerate(loaded[split], start=1):
        for name, label in named.items():
            record[name] = _names(record[name], label, hub.values)
        values = {hub.rename.get(name, name): value for name, value in record.items()}
        yield Row(f"hub:{hub.id}", f"{split} row", number, values)


def _class_label(feature: Any) -> Any:
    """The class label a column holds, alone or in lists."""
    inner = getattr(feature, "feature", feature)
    return inner if hasattr(inner, "int2str") else None


def _names(value: Any, label: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return ",".join(str(_names(v, label, values)) for v in value)
    if isinstance(value, int) and value >= 0:
        name = label.int2str(value)
        return values.get(name, name)
    return value
