"""From whatever a user has, a shipped name, a path, a dict or a Variant, to a Variant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ctxpeft.errors import SpecError
from ctxpeft.shipped import variant_path
from ctxpeft.spec.document import Document
from ctxpeft.spec.explain import shown, spec_error
from ctxpeft.spec.variant import Variant
from ctxpeft.spec.yaml_lines import read_yaml

_SEVERAL = "a choice is for a search space, where a module stands as templates: {NAME: {placement: ...}}"


def load_variant(what: str | os.PathLike[str] | Mapping[str, Any] | Variant) -> Variant:
    """A shipped name (`"prefix-tuning-plus"`), a path to a YAML file, a dict or a Variant.

    Raises SpecError: file, line and key, what was expected, the nearest valid name.
    """
    if isinstance(what, Variant):
        return what
    if isinstance(what, Mapping):
        return variant_from_data(Document(dict(what), {}, "variant"))
    if not isinstance(what, str | os.PathLike):
        raise SpecError(f"expected a variant's name, a path, a mapping or a Variant, found {shown(what)}")
    return variant_from_file(variant_path(os.fspath(what)))


def variant_from_file(path: Path) -> Variant:
    """A variant from a YAML file; an adapter folder (with its variant.yaml) is accepted too."""
    if os.path.isfile(path / "variant.yaml"):
        path = path / "variant.yaml"
    return variant_from_data(read_yaml(path))


def variant_from_data(document: Document) -> Variant:
    """A variant from plain data; messages use the document's name and lines."""
    if document.data is None:
        raise SpecError(f"{document.name}: empty; expected a variant with 'name' and 'modules'")
    if not isinstance(document.data, dict):
        found = "text" if isinstance(document.data, str) else shown(document.data)
        raise SpecError(f"{document.name}: expected a mapping with 'name' and 'modules', found {found}")
    try:
        return Variant.model_validate(document.data)
    except ValidationError as error:
        raise spec_error(error, document, Variant, several=_SEVERAL) from None
