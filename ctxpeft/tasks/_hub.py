"""Datasets of the Hugging Face hub as rows, through the optional `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ctxpeft.errors import DataError, did_you_mean
from ctxpeft.tasks._files import Row
from ctxpeft.tasks._spec import Hub


def hub_rows(hub: Hub, split: str) -> Iterator[Row]:
    """The rows of one split; class-label numbers come as their names.

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
        loaded: Any = datasets.load_dataset(hub.id, hub.config)
    except Exception as error:  # the hub client raises many types, all of them "cannot be had"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"hub dataset '{hub.id}' cannot be loaded: {reason}") from None
    if split not in loaded:
        raise DataError(f"hub dataset '{hub.id}' has no split '{split}'{did_you_mean(split, loaded)}")
    features = loaded[split].features
    named = {name: f for name, f in features.items() if isinstance(f, datasets.ClassLabel)}
    for number, record in enumerate(loaded[split], start=1):
        for name, feature in named.items():
            if isinstance(record[name], int) and record[name] >= 0:
                record[name] = feature.int2str(record[name])
        yield Row(f"hub:{hub.id}", f"{split} row {number}", record)
