"""docs/evidence/reproduction.md, its figures and its data, from finished tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evidence.runs import AGAINST
from benchmarks.evidence.tables import Claim, Plan, Size, Table
from ctxpeft.analysis.comparison import Comparison, Entry
from ctxpeft.analysis.curve import Curve
from ctxpeft.analysis.figure import draw
from ctxpeft.analysis.table import footnote, markdown, p_value
from ctxpeft.analysis.transfer import transfer
from ctxpeft.files import write_json, write_text

PAGE = "reproduction.md"
DIGITS = 5
SIZES: dict[Size, str] = {
    "default": "Each method at its own default size",
    "equal": "Every method sized to the trained parameters of Prefix-Tuning+",
}


@dataclass(frozen=True)
class Part:
    """A finished part of a table: a comparison, or one a point of a curve; `against` is the first once more, with a
    second reference."""

    model: str
    table: Table
    size: Size
    axis: str | None
    comparisons: Mapping[int, Comparison]
    against: Comparison | None = None

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.model}-{self.table.name}-{self.size}"


def collect(out: Path, plan: Plan, results: Path) -> list[str]:
    """Copy every finished part under `out` into `results`, without paths and long decimals; their names."""
    found = []
    for table in plan.tables.values():
        for folder in sorted(out.glob(f"*/{table.name}")):
            for size in table.sizes:
                part = folder / size
                name = f"{folder.parent.name}-{table.name}-{size}"
                places = table.places(part)
                files = {n: place / "compare.json" for n, place in places.items()}
                kept = places[max(places)]
                needed = [*files.values(), *([kept / "dilution.json"] if table.dilution else [])]
                if not all(file.is_file() for file in needed):
                    continue
                data = {str(n): _compact(json.loads(file.read_text())) for n, file in files.items()}
                found_data: dict[str, Any] = {"axis": table.axis, "comparisons": data}
                if (again := part / AGAINST / "compare.json").is_file():
                    found_data["against"] = _compact(json.loads(again.read_text(encoding="utf-8")))
                write_json(results / f"{name}.json", found_data)
                if table.dilution:
                    shutil.copyfile(kept / "dilution.png", results / f"{name}-dilution.png")
                    dilution = json.loads((kept / "dilution.json").read_text(encoding="utf-8"))
                    write_json(results / f"{name}-dilution.json", _rounded(dilution))
                found.append(name)
    return found


def _compact(data: dict[str, Any]) -> dict[str, Any]:
    """The comparison with the model's name for its path, notes about files left out, numbers of five digits."""
    data["model"] = Path(data["model"]).name
    data["notes"] = [note for note in data["notes"] if "/" not in note]
    return _rounded(data)  # type: ignore[no-any-return]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def parts(results: Path, plan: Plan) -> list[Part]:
    """What was collected, in the order of the tables."""
    found = []
    for table in plan.tables.values():
        for size in table.sizes:
            for file in sorted(results.glob(f"*-{table.name}-{size}.json")):
                data = json.loads(file.read_text(encoding="utf-8"))
                comparisons = {int(n): Comparison.from_dict(c) for n, c in data["comparisons"].items()}
                again = Comparison.from_dict(data["against"]) if "against" in data else None
                model = file.stem.removesuffix(f"-{table.name}-{size}")
                if model == next(iter(comparisons.values())).model:
                    found.append(Part(model, table, size, data["axis"], comparisons, again))
    return found


def write_page(docs: Path, plan: Plan) -> Path:
    """The page and its figures, from `docs/results`."""
    results = docs / "results"
    found = parts(results, plan)
    lines = [
        "# The reproduction",
        "",
        "<!-- written by `python -m benchmarks.evidence write`: edit the command, not the page -->",
        "",
        _first(found),
        "",
        *_claims(found),
        "",
    ]
    if plan.untestable:
        sentences = (f"- {sentence}" for sentence in plan.untestable)
        lines += ["**What cannot be tested here.**", "", *sentences, ""]
    told: set[tuple[str, str]] = set()
    for part in found:
        if (part.table.name, part.model) not in told:
            told.add((part.table.name, part.model))
            lines += [f"## {part.table.title}", "", _asks(part.table), "", *_command(part), ""]
        lines += _part(part, results)
    path = docs / PAGE
    write_text(path, "\n".join(lines).rstrip() + "\n")
    return path


def _first(found: list[Part]) -> str:
    if not found:
        return "No table has finished yet."
    models = ", ".join(sorted({part.model for part in found}))
    return (
        f"The paper's comparisons on small models ({models}), each table one command. The learning rate of every "
        "method is tuned for every table on validation data: three rates around the method's hint, a factor of three "
        "apart, and up to two more where the best lies at the edge. Test data are read at the chosen rate only. "
        "Seconds are the mean of a run, on a machine that other work may have shared."
    )


def _asks(table: Table) -> str:
    grouped = table.training.get("group_by_length")
    return table.asks + (" Batches hold examples of like length." if grouped else "")


def _command(part: Part) -> list[str]:
    option = "--encoder" if part.table.encoder else "--model"
    on = f"{option} {part.model} --data-root data --out runs/evidence"
    return ["```sh", f"python -m benchmarks.evidence run {part.table.name} {on}", "```"]


def _claims(found: list[Part]) -> list[str]:
    """A table of every claim by what each finished part says of it."""
    rows: dict[str, list[str]] = {}
    for part in found:
        where = f"{part.table.name}, {part.size} size" if len(part.table.sizes) > 1 else part.table.name
        for claim in part.table.claims:
            for word, comparison in _asked(part, claim):
                entry = next((e for e in comparison.entries if e.name == (claim.of or claim.than)), None)
                if entry is None or entry.difference is None:
                    continue
                at = f"{where} at {word}" if part.axis else where
                said = verdict(comparison, entry, reference_ahead=claim.of is None)
                rows.setdefault(claim.says, []).append(f"{at}: {said}")
    if not rows:
        return []
    lines = ["| claim | what the tables say |", "|---|---|"]
    return [*lines, *(f"| {claim} | {'; '.join(said)} |" for claim, said in rows.items())]


def _asked(part: Part, claim: Claim) -> list[tuple[int, Comparison]]:
    """The comparisons that a claim is about, with their places on the axis; those of a curve corrected as one family,
    as its table is."""
    if claim.of is None:
        if part.axis is None:
            return list(part.comparisons.items())
        curve = Curve.of(part.axis, part.comparisons)
        return list(zip(curve.sizes, curve.comparisons, strict=True))
    again = part.against
    return [(0, again)] if again is not None and again.entries[0].name == claim.than else []


def verdict(comparison: Comparison, entry: Entry, reference_ahead: bool = True) -> str:
    """`holds`, `contradicted` or `not shown`, of the reference being better than the entry, or else of the entry being
    better, with the difference."""
    difference = entry.difference
    if difference is None:
        return "not compared"
    mean = -difference.mean if reference_ahead else difference.mean
    told = f"{round(mean, 3) + 0.0:+.3f}"
    if not entry.significant:
        return f"not shown ({told})"
    ahead = (mean > 0) == comparison.greater_is_better
    return f"**holds** ({told})" if ahead else f"**contradicted** ({told})"


def _part(part: Part, results: Path) -> list[str]:
    """The tables and figures of a part; figures are drawn beside the data."""
    heading = [f"### {SIZES[part.size]}", ""] if len(part.table.sizes) > 1 else []
    if part.axis:
        curve = Curve.of(part.axis, part.comparisons)
        curve.draw(results / f"{part.name}.png")
        body = curve.markdown().split("\n", 2)[2].splitlines()
        figure = f"![{part.axis}](results/{part.name}.png)"
        at = f" The adapters are those of {max(part.comparisons)} {part.axis}."
        return [*heading, *body, "", figure, "", *_dilution(results, part.name, at)]
    comparison = part.comparisons[0]
    draw(comparison, results / f"{part.name}.png")
    table = markdown(comparison).split("\n", 2)[2].split(footnote(comparison))[0].strip()
    lines = [
        *heading,
        table,
        "",
        footnote(comparison),
        "",
        f"![seeds and intervals](results/{part.name}.png)",
        "",
    ]
    lines += _further(comparison)
    lines += [] if part.against is None else _against(part.against)
    if "unrelated" in comparison.base or comparison.ood_metric:
        found = transfer(comparison)
        found.draw(results / f"{part.name}-transfer.png")
        lines += [
            found.about,
            "",
            f"![what is gained and what is lost](results/{part.name}-transfer.png)",
            "",
        ]
    return [*lines, *_dilution(results, part.name)]


def _dilution(results: Path, name: str, at: str = "") -> list[str]:
    """What the memories of a part keep as the input grows: means over layers, and the figure."""
    if not (results / f"{name}-dilution.png").is_file():
        return []
    data = json.loads((results / f"{name}-dilution.json").read_text(encoding="utf-8"))
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for row in data["rows"]:
        found.setdefault(row["adapter"], {}).setdefault(row["n"], []).append(row)
    lengths = sorted({row["n"] for row in data["rows"]})
    lines = [
        f"| weight (share) | {' | '.join(f'n = {n}' for n in lengths)} |",
        "|---" * (len(lengths) + 1) + "|",
    ]
    for adapter, by_length in found.items():
        lines.append(f"| {adapter} | {' | '.join(_kept(by_length[n]) for n in lengths)} |")
    about = data["about"].removesuffix(".") + "; the table has their means over layers. First seed."
    return [about + at, "", *lines, "", f"![what the memory keeps](results/{name}-dilution.png)", ""]


def _kept(rows: list[dict[str, Any]]) -> str:
    weights = [row["weight"] for row in rows if row["weight"] is not None]
    share = sum(row["share"] for row in rows) / len(rows)
    return f"{sum(weights) / len(weights):.2f} ({share:.2f})" if weights else f"({share:.2f})"


def _further(comparison: Comparison) -> list[str]:
    """The other metrics of generated text, a row a method; they are means over seeds."""
    names = [
        n for n in ("bleu", "chrf", "rouge_l", "f1", "exact_match") if n in comparison.entries[0].metrics
    ]
    if len(names) < 2:
        return []
    rows = [
        f"| {e.name} | " + " | ".join(f"{e.metrics[n]:.3f}" for n in names) + " |" for e in comparison.entries
    ]
    return ["| variant | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1), *rows, ""]


def _against(comparison: Comparison) -> list[str]:
    """The same runs by their differences to another reference."""
    reference, *others = comparison.entries
    lines = [
        f"The same runs by their differences to {reference.name}, corrected for the {len(others)} comparisons again:",
        "",
        f"| variant | trainable | difference to {reference.name} [95 %] | p (Holm) | verdict |",
        "|---|---|---|---|---|",
    ]
    for entry in others:
        difference = entry.difference
        assert difference is not None
        assert entry.adjusted is not None
        interval = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
        lines.append(
            f"| {entry.name} | {entry.trainable:,} | {interval} | {p_value(entry.adjusted)} | {entry.verdict} |"
        )
    return [*lines, ""]
