"""Tiny configurations of every model type: the type's own configuration class, with small numbers from a table."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml
from transformers import CONFIG_MAPPING, PreTrainedConfig

FIRST_SPECIAL = 95


@functools.cache
def table() -> dict[str, Any]:
    """`configurations.yaml`: the numbers for all types, and those of each."""
    found: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("configurations.yaml").read_text())
    return found


def reason(model_type: str) -> str | None:
    """Why a model type cannot be built, where the table knows more than the error says."""
    found: str | None = table()["reasons"].get(model_type)
    return found


def tiny_config(model_type: str) -> PreTrainedConfig:
    """A configuration of a model type with a few thousand parameters. Raises KeyError for an unknown type."""
    kind = CONFIG_MAPPING[model_type]
    config: PreTrainedConfig = kind(**tiny_settings(kind))
    return config


def tiny_settings(kind: type[PreTrainedConfig]) -> dict[str, Any]:
    """The keyword arguments of a configuration class, those of its sub-configurations as mappings."""
    own = table()["families"].get(kind.model_type, {}) or {}
    names = field_names(kind)
    settings = {name: value for name, value in table()["common"].items() if name in names}
    special = FIRST_SPECIAL
    for name in sorted(names - settings.keys()):
        if name.endswith(("_token_id", "_token_index")):
            settings[name], special = special, special - 1
    for name, part in (kind.sub_configs or {}).items():
        if name in own and not isinstance(own[name], Mapping):
            continue
        chosen = _part(kind, name, part, own.get(name, {}))
        if chosen is not None:
            settings[name] = {**tiny_settings(chosen), "model_type": chosen.model_type}
    return merged(settings, own)


def field_names(kind: type[PreTrainedConfig]) -> set[str]:
    """The names a configuration class takes."""
    names = {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    return names | set(inspect.signature(kind.__init__).parameters) - {"self", "kwargs"}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def _part(
    kind: type[PreTrainedConfig], name: str, part: Any, own: Mapping[str, Any]
) -> type[PreTrainedConfig] | None:
    """The class of a sub-configuration: what the table names, else its declared type, else that of the default."""
    if "model_type" in own:
        found: type[PreTrainedConfig] = CONFIG_MAPPING[own["model_type"]]
        return found
    if isinstance(part, type) and issubclass(part, PreTrainedConfig):
        return part
    default = getattr(kind(), name, None)
    return type(default) if isinstance(default, PreTrainedConfig) else None
