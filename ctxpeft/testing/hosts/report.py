"""The results of a sweep as a table, as counts, and as what is recorded of each family."""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from ctxpeft.testing.hosts.configurations import reason
from ctxpeft.testing.hosts.family import FAILS, HOLDS, REFUSED, Result, variants

MAPPING_NAMES = {
    "causal": "Causal language models",
    "seq2seq": "Encoder-decoders",
    "masked": "Masked language models",
}
RECORD = "expected.json"
BEGIN, END = "<!-- written by: python -m ctxpeft.testing.hosts --write -->", "<!-- end -->"


def recorded(result: Result) -> dict[str, str]:
    """What is expected of a family from now on: each variant's verdict, and HF PEFT's."""
    if "error" in result:
        return {"error": result["error"].split(":")[0]}
    entry = {}
    for name, found in result["variants"].items():
        failed = ", ".join(found.get("checks", {}))
        entry[name] = f"{FAILS}: {failed}" if found["state"] == FAILS else found["state"]
    return entry | {"peft": result["peft"]}


def key(result: Result) -> str:
    """`causal/llama`."""
    return f"{result['mapping']}/{result['model_type']}"


def expected() -> dict[str, dict[str, str]]:
    """The recorded expectations, shipped with the package."""
    found: dict[str, dict[str, str]] = json.loads(files(__package__).joinpath(RECORD).read_text())
    return found


def differences(results: Iterable[Result]) -> list[str]:
    """One sentence for each verdict on a variant that is not the recorded one. HF PEFT's are not ours to keep."""
    known, found = expected(), []
    for result in results:
        now, before = recorded(result), known.get(key(result), {})
        for name in sorted((now.keys() | before.keys()) - {"peft"}):
            if now.get(name) != before.get(name):
                found.append(f"{key(result)}: {name}: recorded {before.get(name)!r}, found {now.get(name)!r}")
    return found


def write_record(results: Iterable[Result]) -> None:
    """Put results among the recorded expectations, in the package."""
    path = Path(str(files(__package__).joinpath(RECORD)))
    known = json.loads(path.read_text()) if path.exists() else {}
    known |= {key(result): recorded(result) for result in results}
    path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def markdown(results: list[Result]) -> str:
    """The table of each mapping, the refusals and the counts."""
    parts = [_stamp(), counts(results)]
    for mapping, title in MAPPING_NAMES.items():
        mine = [r for r in results if r["mapping"] == mapping]
        if mine:
            parts += [f"### {title}", _table(mine)]
    return "\n\n".join([*parts, "### Refusals", _refusals(results)]) + "\n"


def write_page(path: Path, results: list[Result]) -> None:
    """Put the table between the marks of a page."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{markdown(results)}\n{END}{after}")


def counts(results: list[Result]) -> str:
    """How many families hold, refuse and fail, by mapping and variant."""
    names = [*variants(), "HF PEFT prefix tuning"]
    rows = []
    for mapping, title in MAPPING_NAMES.items():
        mine = [r for r in results if r["mapping"] == mapping]
        built = [r for r in mine if "error" not in r]
        if mine:
            rows.append([title, str(len(mine)), str(len(built)), *(_share(built, name) for name in names)])
    return _lines(["", "families", "built", *names], rows)


def _share(results: list[Result], name: str) -> str:
    if name not in variants():
        works = sum(r["peft"] == "works" for r in results)
        return f"{works} work, {len(results) - works} do not"
    states = Counter(r["variants"][name]["state"] for r in results)
    words = [f"{states[HOLDS]} hold", f"{states[REFUSED]} refused"]
    return ", ".join([*words, f"{states[FAILS]} fail"] if states[FAILS] else words)


def _table(results: list[Result]) -> str:
    names = list(variants())
    rows = [_row(r, names) for r in sorted(results, key=lambda r: r["model_type"])]
    return _lines(["family", "attention", "generation", *names, "HF PEFT prefix tuning"], rows)


def _row(result: Result, names: list[str]) -> list[str]:
    family = f"`{result['model_type']}`"
    if "error" in result:
        told = reason(result["model_type"]) or _plain(result["error"])
        return [family, f"not built: {told}", *[""] * (len(names) + 2)]
    verdicts = [_verdict(result["variants"][name]) for name in names]
    return [
        family,
        _attention(result["host"]),
        str(result["host"].get("generates", "")),
        *verdicts,
        result["peft"],
    ]


def _verdict(found: Result) -> str:
    return f"**fails**: {', '.join(found['checks'])}" if found["state"] == FAILS else str(found["state"])


def _attention(host: Result) -> str:
    """`2 decoder: 4/2 heads of 8`, or of which widths q and v are where they differ."""
    kinds: Counter[str] = Counter()
    for layer in host.get("layers", ()):
        text = str(layer["stack"])
        if layer["interface"]:
            q, v = layer["widths"]
            heads = "/".join(map(str, layer["heads"]))
            text += f": {heads} heads of {q if q == v else f'{q} and {v}'}"
        else:
            text += ": outside the interface"
        kinds[text] += 1
    none = "needs more than text" if "token ids alone" in host.get("refused", "") else "none"
    return "; ".join(f"{count} {text}" for text, count in kinds.items()) or none


def _refusals(results: list[Result]) -> str:
    """Each reason once, with the families it is said of."""
    said: dict[str, set[str]] = {}
    for result in results:
        for found in result.get("variants", {}).values():
            if found["state"] == REFUSED:
                reason = re.sub(r"^[\w-]+: modules\[\d+\]: ", "", found["reason"])
                reason = re.sub(r"\b[\w.]+\.\d+ \((\w+)\)", "a layer", reason)
                reason = re.sub(r"this model \(\w+\)", "this model", reason)
                said.setdefault(reason, set()).add(f"`{result['model_type']}`")
    return "\n".join(
        f"- {reason}: {', '.join(sorted(families))}." for reason, families in sorted(said.items())
    )


def _stamp() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("transformers", "torch", "peft"))
    return f"{datetime.date.today().isoformat()}; {packages}; CPU, float32."


def _lines(headers: list[str], rows: list[list[Any]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    return " ".join(text.split())[:140]
