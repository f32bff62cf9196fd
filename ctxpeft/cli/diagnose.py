"""`ctxpeft diagnose`: what a memory does in a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctxpeft.cli import _output
from ctxpeft.cli._arguments import (
    DATA,
    OUTPUT,
    RUN,
    WHAT,
    DryRunOption,
    JsonOption,
    ModelOption,
    numbers,
)
from ctxpeft.cli._complete import instruments
from ctxpeft.errors import DataError, SpecError, did_you_mean
from ctxpeft.extras import require

if TYPE_CHECKING:
    from torch import Tensor

    from ctxpeft.analysis.diagnose import Diagnosis
    from ctxpeft.hosts.handle import Handle
    from ctxpeft.training import Base

LENGTHS = "1,4,16,64,128"


def command(
    adapters: Annotated[
        list[str],
        typer.Option(
            "--adapter",
            "-a",
            help="An adapter's folder, or a variant as it begins; may be repeated.",
            metavar="DIR",
            rich_help_panel=WHAT,
        ),
    ],
    model: ModelOption = "ctxpeft-mini",
    text: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            "-t",
            help="Plain text to measure on; may be repeated.",
            metavar="FILE",
            rich_help_panel=DATA,
        ),
    ] = None,
    what: Annotated[
        str,
        typer.Option(
            "--what",
            "-w",
            help="dilution, spectrum, attention, gates, reads, slots; or all.",
            metavar="NAME,...",
            rich_help_panel=RUN,
            autocompletion=instruments,
        ),
    ] = "all",
    lengths: Annotated[
        str,
        typer.Option(
            "--lengths",
            help="Numbers of tokens for the dilution.",
            metavar="N,N,...",
            rich_help_panel=RUN,
        ),
    ] = LENGTHS,
    windows: Annotated[
        int,
        typer.Option(
            "--windows",
            min=1,
            help="Windows of text, as long as the longest.",
            metavar="N",
            rich_help_panel=RUN,
        ),
    ] = 32,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for tables, JSON and pictures.",
            metavar="DIR",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Measure what adapters do: dilution, spectrum, attention shift, gates, who reads, what slots say.

    Examples:
      ctxpeft diagnose -a prefix-tuning --what dilution
      ctxpeft diagnose --model ./model -a runs/prefix -a runs/plus --text book.txt --out runs/diagnosis
    """
    from ctxpeft.training import load_base

    names = chosen(what)
    counts = numbers(lengths, "--lengths")
    if out is not None:
        require("matplotlib", "plots", "a picture of a diagnosis")
    base = load_base(model)
    ids = windows_of(base, text, max(counts), windows)
    handles = attached(base, adapters)
    if dry_run:
        rows, length = ids.shape
        plan = {"model": model, "adapters": list(handles), "instruments": names}
        _output.emit_plan("diagnose", {**plan, "windows": rows, "tokens_a_window": length}, json)
        return
    found = [measure(name, base, handles, ids, counts) for name in names]
    if out is not None:
        for diagnosis in found:
            diagnosis.write(out)
    if json:
        _output.emit("diagnose", {"model": model, "diagnoses": [d.to_dict() for d in found], "out": out})
        return
    console = _output.stdout()
    for diagnosis in found:
        console.print(diagnosis.markdown(), markup=False)
    if out is not None:
        _output.note(f"written to {out}")


def chosen(what: str) -> list[str]:
    """The instruments of `--what`. Raises SpecError on one that does not exist."""
    from ctxpeft.analysis.diagnose import INSTRUMENTS

    names = [name.strip() for name in what.split(",") if name.strip()]
    if names == ["all"]:
        return list(INSTRUMENTS)
    for name in names:
        if name not in INSTRUMENTS:
            raise SpecError(f"--what: no instrument '{name}'{did_you_mean(name, [*INSTRUMENTS, 'all'])}")
    if not names:
        raise SpecError(f"--what names no instrument: choose among {', '.join(INSTRUMENTS)}, or all")
    return names


def windows_of(base: Base, files: list[Path] | None, length: int, limit: int) -> Tensor:
    """Windows of the given files, or of the shipped task's texts. Raises DataError on a file that is no text."""
    from ctxpeft.analysis.diagnose._texts import windows

    if base.positions is not None and length > base.positions:
        raise DataError(f"--lengths: {length} is more than the {base.positions} positions of the model")
    return windows(base.tokenizer, read_texts(files) if files else shipped_texts(), length, limit)


def read_texts(files: list[Path]) -> list[str]:
    """The files' contents. Raises DataError on a file that cannot be read as UTF-8 text."""
    texts = []
    for file in files:
        try:
            texts.append(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise DataError(f"{file}: cannot be read as text ({reason.lower()})") from None
    return texts


def shipped_texts() -> list[str]:
    """The test texts of the task that ships."""
    from ctxpeft.tasks import build_task, load_task

    return [example.text for example in build_task(load_task("docstring-area")).test]


def attached(base: Base, adapters: list[str]) -> dict[str, Handle]:
    """Every adapter on the model, under a name of its own. Raises SpecError for a wrapped PEFT tuner."""
    import ctxpeft
    from ctxpeft.hosts.handle import Handle as OurHandle

    handles: dict[str, Handle] = {}
    for index, where in enumerate(adapters):
        folder = Path(where)
        if (folder / "adapter" / "adapter.safetensors").is_file():
            folder = folder / "adapter"
        name = f"adapter-{index}"
        if folder.is_dir():
            handle = ctxpeft.load(base.model, folder, name=name)
        else:
            handle = ctxpeft.attach(base.model, where, name=name, seed=0, tokenizer=base.tokenizer)
        if not isinstance(handle, OurHandle):
            raise SpecError(f"{where} wraps an HF PEFT tuner, which has no memory to look into")
        shown = handle.variant.name
        handles[shown if shown not in handles else f"{shown} ({where})"] = handle
    return handles


def measure(name: str, base: Base, handles: dict[str, Handle], ids: Tensor, counts: list[int]) -> Diagnosis:
    """One instrument on all adapters."""
    from ctxpeft.analysis import diagnose

    if name == "dilution":
        return diagnose.dilution(handles, ids, counts)
    if name == "spectrum":
        return diagnose.spectrum(handles, ids)
    if name == "attention":
        return diagnose.attention_shift(handles, ids)
    if name == "gates":
        return diagnose.gates(handles, ids)
    if name == "reads":
        return diagnose.reads(handles, ids, base.tokenizer)
    return diagnose.slots(handles, base.tokenizer)
