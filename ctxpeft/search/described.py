"""What of a space decides results, as a study keeps it: two studies that differ there are not one study."""

from __future__ import annotations

from typing import Any

from ctxpeft.search.settings import Search
from ctxpeft.search.spacefile import SpaceFile

NOT_DECISIVE = {"trials", "finalists", "seeds", "retune", "metrics", "forgetting", "cache"}
LATER = ("sampler", "constraints", "forgetting_tokens", "audit", "together")
"""Settings that came after the first studies: named only where they are used, so that those studies go on."""


def asked(file: SpaceFile) -> dict[str, Any]:
    """The designs and the settings of a space; what model and data decide is not in it."""
    space = file.model_dump(mode="json", exclude={"title", "model", "task", "search", "training", "data"})
    if not file.rates.widen:
        del space["rates"]["widen"]  # as in studies made before there was such a thing
    return {"space": space, "search": _decisive(file.search)}


def _decisive(search: Search) -> dict[str, Any]:
    data = search.model_dump(mode="json", exclude=NOT_DECISIVE)
    defaults = Search().model_dump(mode="json")
    return {key: value for key, value in data.items() if key not in LATER or value != defaults[key]}
