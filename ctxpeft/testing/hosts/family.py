"""One family, examined: what the host is, every variant against every check, HF PEFT's prefix tuning beside it."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any

import yaml

import ctxpeft
from ctxpeft.errors import HostError
from ctxpeft.hosts.discover import Layer, discover
from ctxpeft.testing.hosts.checks import CHECKS, host_generates, host_is_causal
from ctxpeft.testing.hosts.peft_prefix import measure
from ctxpeft.testing.hosts.subject import Subject

Result = dict[str, Any]
HOLDS, REFUSED, FAILS = "holds", "refused", "fails"


@functools.cache
def variants() -> dict[str, Any]:
    """`variants.yaml`: what is attached, by name."""
    found: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("variants.yaml").read_text())
    return found


def examine(mapping: str, model_type: str, peft: bool = True) -> Result:
    """Everything the table says of one family. A model that cannot be built is told under `error`."""
    result: Result = {"mapping": mapping, "model_type": model_type}
    try:
        subject = Subject(mapping, model_type)
        result["class"] = type(subject.model()).__name__
    except Exception as error:
        return {**result, "error": _sentence(error)}
    result["host"] = _host(subject)
    result["variants"] = {name: verdict(subject, variant) for name, variant in variants().items()}
    if peft:
        result["peft"] = measure(subject)
    return result


def verdict(subject: Subject, variant: Any) -> Result:
    """`holds`, `refused` with the sentence, or `fails` with what each failed check says."""
    try:
        ctxpeft.attach(subject.model(), variant, seed=0)
    except HostError as error:
        return {"state": REFUSED, "reason": str(error)}
    except Exception as error:
        return {"state": FAILS, "checks": {"attach": _sentence(error)}}
    failed = {}
    for check in CHECKS:
        try:
            check(subject, variant)
        except Exception as error:
            failed[check.__name__] = _sentence(error)
    return {"state": FAILS, "checks": failed} if failed else {"state": HOLDS}


def _host(subject: Subject) -> Result:
    """What the host is by itself: its layers and whether causality and generation can be asked of it."""
    try:
        layers = discover(subject.model())
    except HostError as error:
        return {"refused": str(error)}
    except Exception as error:
        return {"error": _sentence(error)}
    return {
        "layers": [_layer(layer) for layer in layers],
        "causal": host_is_causal(subject),
        "generates": {True: "left-padded", False: "without padding", None: "no"}[host_generates(subject)],
    }


def _layer(layer: Layer) -> Result:
    found: Result = {
        "stack": layer.stack,
        "interface": layer.wiring is not None,
        "ffn": layer.ffn is not None,
    }
    if layer.wiring is not None:
        w = layer.wiring
        found |= {"heads": [w.query_heads, w.kv_heads], "widths": [w.query_width, w.value_width]}
        found |= {"unrotated": w.query is not None, "projections": w.projects()}
    return found


def _sentence(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
