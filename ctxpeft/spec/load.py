"""From whatever a user has, a shipped name, a path, a dict or a Variant, to a Variant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ctxpeft.errors import SpecError, did_you_mean
from ctxpeft.shipped import shipped_file, shipped_names
from ctxpeft.spec.explain import spec_error
from ctxpeft.spec.variant import Variant
from ctxpeft.spec.yaml_lines import Document, read_yaml


def load_variant(what: str | os.PathLike[str] | Mapping[str, Any] | Variant) -> Variant:
    """A shipped name (`"prefix-tuning-plus"`), a path to a YAML file, a dict or a Variant.

    Raises SpecError: file, line and key, what was expected, the nearest valid name.
    """
    if isinstance(what, Variant):
        return what
    if isinstance(what, Mapping):
        return variant_from_data(Document(dict(what), {}, "variant"))
    text = os.fspath(what)
    if _looks_like_a_path(text):
        return variant_from_file(Path(text))
    path = shipped_file("variants", text)
    if path is None:
        raise SpecError(
            f"no shipped variant is called '{text}' and no such file exists{did_you_mean(text, shipped_names('variants'))}"
        )
    return variant_from_file(path)


def _looks_like_a_path(text: str) -> bool:
    return text.endswith((".yaml", ".yml", ".json")) or os.sep in text or Path(text).is_file()


def variant_from_file(path: Path) -> Variant:
    """A variant from a YAML file; an adapter folder (with its variant.yaml) is accepted too."""
    if path.is_dir() and (path / "variant.yaml").is_file():
        path = path / "variant.yaml"
    return variant_from_data(read_yaml(path))


def variant_from_data(document: Document) -> Variant:
    """A variant from plain data; messages use the document's name and lines."""
    if document.data is None:
        raise SpecError(f"{document.name}: empty; expected a variant with 'name' and 'modules'")
    if not isinstance(document.data, dict):
        found = "a list" if isinstance(document.data, list) else type(document.data).__name__
        raise SpecError(f"{document.name}: expected a mapping with 'name' and 'modules', found {found}")
    try:
        return Variant.model_validate(document.data)
    except ValidationError as error:
        raise spec_error(error, document, Variant) from None


def dump_yaml(data: Any) -> str:
    """Plain data as YAML, keys in order."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
