"""The modules of the layer around an attention, by their names: what takes its input, what gives its output, FFN."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ctxpeft.hosts.families import (
    ATTENTION,
    CROSS,
    FFN,
    PIECES,
    PROJECTED_BY,
    PROJECTED_IN,
    RECURRENCE,
    REVERSIBLE,
)


@dataclass(frozen=True)
class Parts:
    """Names of modules. layer: the module around the attention; itself where the layer is no module (`in_pieces`).
    first, last: what takes the layer's input and gives its output. output: behind it stands the site
    `attention_output`. ffn: the modules that take the input and give the output of the FFN."""

    layer: str
    first: str
    last: str
    output: str
    ffn: tuple[str, str] | None
    in_pieces: bool


def parts(model: nn.Module, attention: str, interface: bool) -> Parts:
    """The layer around an attention; `interface`: it calls transformers' attention interface."""
    layer, output = around(model, attention), _output(model, attention, interface)
    pieces = _pieces(model, attention)
    if pieces is not None:
        ffn, norm = pieces
        return Parts(layer, attention, norm, output, (ffn, ffn), True)
    parent = attention.rpartition(".")[0]
    pairs = [(f"{where}.{a}", f"{where}.{b}") for where in (layer, parent) for a, b in FFN]
    ffn_pair = next(
        (pair for pair in pairs if all(_is_called(submodule(model, name)) for name in pair)), None
    )
    return Parts(layer, layer, layer, output, ffn_pair, False)


def around(model: nn.Module, name: str) -> str:
    """The name of the layer an attention is in: the outermost numbered module on its path that is called (itself,
    maybe), else its parent."""
    parts = name.split(".")
    for position, part in enumerate(parts):
        path = ".".join(parts[: position + 1])
        if part.isdigit() and _is_called(submodule(model, path)):
            return path
    return ".".join(parts[:-1])


def usual_attentions(model: nn.Module) -> list[str]:
    """The attentions of all layers that are known by their usual names, whoever calls what."""
    names: list[str] = []
    for name, module in model.named_modules():
        reversible = callable(getattr(module, REVERSIBLE, None))
        if reversible or not name.rpartition(".")[2].isdigit() or not _is_called(module):
            continue
        if _pieces(model, name) is not None:
            names.append(name)
        for kinds in (ATTENTION, CROSS):
            there = (f"{name}.{part}" for part in kinds if _has_weights(submodule(module, part)))
            names += list(there)[:1]
    return names


def submodule(module: nn.Module, path: str) -> nn.Module | None:
    """A submodule by its path, or None."""
    for name in path.split("."):
        found = module._modules.get(name)
        if not isinstance(found, nn.Module):
            return None
        module = found
    return module


def _pieces(model: nn.Module, attention: str) -> tuple[str, str] | None:
    """The FFN and the closing norm of a layer that is no module, by the place of its attention in a list."""
    parent, _, number = attention.rpartition(".")
    for attentions, *others in PIECES:
        if parent.rpartition(".")[2] == attentions:
            ffn, norm = (f"{parent.removesuffix(attentions)}{name}.{number}" for name in others)
            if submodule(model, ffn) is not None and submodule(model, norm) is not None:
                return ffn, norm
    return None


def _output(model: nn.Module, attention: str, interface: bool) -> str:
    parent, _, attribute = attention.rpartition(".")
    beside = [f"{parent}.{PROJECTED_BY}"] if attribute == "self" else []
    inside = [] if interface else [f"{attention}.{path}" for path in PROJECTED_IN]
    return next((name for name in (*beside, *inside) if submodule(model, name) is not None), attention)


def _is_called(module: nn.Module | None) -> bool:
    """Whether there is a module, and not a list of them."""
    return module is not None and not isinstance(module, nn.ModuleList)


def _has_weights(module: nn.Module | None) -> bool:
    if module is None or submodule(module, RECURRENCE) is not None:
        return False
    return any(p.ndim >= 2 for p in module.parameters())
