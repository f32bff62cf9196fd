"""`ctxpeft doctor [--model M]`."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

from ctxpeft import __version__
from ctxpeft.cli._arguments import JsonOption, model_option
from ctxpeft.cli._output import emit
from ctxpeft.cli._tables import aligned
from ctxpeft.errors import CtxpeftError

PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "pydantic", "optuna")
EXTRAS = {
    "peft": "peft",
    "datasets": "data",
    "matplotlib": "plots",
    "latex2mathml": "plots",
    "psycopg2-binary": "postgres",
    "sacrebleu": "text",
    "rouge-score": "text",
    "trl": "trl",
    "lm-eval": "eval",
    "torchao": "quant",
    "optuna-dashboard": "dashboard",
}


def command(
    model: Annotated[str | None, model_option("Also ask whether this model can host variants.")] = None,
    json: JsonOption = False,
) -> int:
    """Say what is installed, what the machine has, whether every block loads and whether a model is supported.

    Exits 1 if a block does not load or the model is not supported.

    Examples:
      ctxpeft doctor
      ctxpeft doctor --model ./model --json
    """
    result: dict[str, Any] = {
        "versions": _versions(),
        "extras": {name: _version(name) for name in EXTRAS},
        "machine": _machine(),
        "blocks": _blocks(),
    }
    if model is not None:
        result["model"] = _model(model)
    problems = [line for part in ("blocks", "model") for line in result.get(part, {}).get("problems", [])]
    result["problems"] = problems
    if json:
        emit("doctor", result)
    else:
        _print(result)
    return 1 if problems else 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> dict[str, str | None]:
    return {
        "ctxpeft": __version__,
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def _machine() -> dict[str, Any]:
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("Apple GPU (mps)")
    return {
        "platform": f"{sys.platform} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "devices": devices,
    }


def _blocks() -> dict[str, Any]:
    from ctxpeft.spec.registry import families, kinds

    counts: dict[str, int] = {}
    problems: list[str] = []
    for family in families():
        try:
            counts[family] = len(kinds(family))
        except CtxpeftError as error:
            problems.append(str(error))
    return {"counts": counts, "problems": problems}


def _model(name: str) -> dict[str, Any]:
    try:
        from ctxpeft.cli._model import empty_model
        from ctxpeft.hosts.discover import discover

        layers = discover(empty_model(name))
    except CtxpeftError as error:
        return {"name": name, "supported": False, "problems": [str(error)]}
    first = layers[0]
    return {
        "name": name,
        "supported": True,
        "layers": len(layers),
        "query_heads": first.query_heads,
        "kv_heads": first.kv_heads,
        "head_width": first.query_width,
        "hidden_width": first.hidden_width,
        "problems": [],
    }


def _print(result: dict[str, Any]) -> None:
    machine, extras = result["machine"], result["extras"]
    rows = [(name, found or "missing") for name, found in result["versions"].items()]
    rows += [
        (name, found or f"not installed (extra ctxpeft[{EXTRAS[name]}])") for name, found in extras.items()
    ]
    rows.append(("platform", machine["platform"]))
    rows.append(("torch threads", str(machine["threads"])))
    rows.append(("accelerators", ", ".join(machine["devices"]) or "none"))
    counts = result["blocks"]["counts"]
    rows.append(("blocks", ", ".join(f"{count} {family}" for family, count in counts.items())))
    model = result.get("model")
    if model is not None and model["supported"]:
        shape = f"{model['layers']} layers, {model['query_heads']} query heads, {model['kv_heads']} kv heads"
        rows.append((model["name"], f"supported: {shape} of width {model['head_width']}"))
    for line in aligned(rows):
        print(line)
    for problem in result["problems"]:
        print(f"problem: {problem}")
    if not result["problems"]:
        print("all well")
