"""docs/evidence/reproduction.md, its figures and its data, from finished tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evidence.tables import Plan, Size, Table
from ctxpeft.analysis.comparison import Comparison, Entry
from ctxpeft.analysis.curve import Curve
from ctxpeft.analysis.figure import draw
from ctxpeft.analysis.table import footnote, markdown
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
    """A finished part of a table: a comparison, or one a point of a curve."""

    model: str
    table: Table
    size: Size
    axis: str | None
    comparisons: Mapping[int, Comparison]

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
                files = {0: part / "compare.json"}
                axis = None
                if table.per_class:
                    axis = "training examples per class"
                    files = {n: part / f"per-class-{n}" / "compare.json" for n in table.per_class}
                if table.behind:
                    axis = "words of a story before the question"
                    files = {n: part / f"words-{n}" / "compare.json" for n in table.behind.words}
                if not all(file.is_file() for file in files.values()):
                    continue
                data = {str(n): _compact(json.loads(file.read_text())) for n, file in files.items()}
                write_json(results / f"{name}.json", {"axis": axis, "comparisons": data})
                if table.dilution:
                    shutil.copyfile(part / "dilution.png", results / f"{name}-dilution.png")
                    dilution = json.loads((part / "dilution.json").read_text(encoding="utf-8"))
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
                model = file.stem.removesuffix(f"-{table.name}-{size}")
                if model == next(iter(comparisons.values())).model:
                    found.append(Part(model, table, size, data["axis"], comparisons))
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
        "**What cannot be tested here.**",
        "",
        *(f"- {sentence}" for sentence in plan.untestable),
        "",
    ]
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
        for claim in part.table.claims:
            for word, comparison in part.comparisons.items():
                entry = next((e for e in comparison.entries if e.name == claim.than), None)
                if entry is None:
                    continue
                where = (
                    f"{part.table.name}, {part.size} size" if len(part.table.sizes) > 1 else part.table.name
                )
                where += f" at {word}" if part.axis else ""
                rows.setdefault(claim.says, []).append(f"{where}: {verdict(comparison, entry)}")
    if not rows:
        return []
    lines = ["| claim | what the tables say |", "|---|---|"]
    return [*lines, *(f"| {claim} | {'; '.join(said)} |" for claim, said in rows.items())]


def verdict(comparison: Comparison, entry: Entry) -> str:
    """`holds`, `contradicted` or `not shown`, of the reference being better than the entry, with the difference."""
    difference = entry.difference
    if difference is None:
        return "not compared"
    told = f"{round(-difference.mean, 3) + 0.0:+.3f}"
    if not entry.significant:
        return f"not shown ({told})"
    ahead = (difference.mean < 0) == comparison.greater_is_better
    return f"**holds** ({told})" if ahead else f"**contradicted** ({told})"


def _part(part: Part, results: Path) -> list[str]:
    """The tables and figures of a part; figures are drawn beside the data."""
    heading = [f"### {SIZES[part.size]}", ""] if len(part.table.sizes) > 1 else []
    if part.axis:
        curve = Curve.of(part.axis, part.comparisons)
        curve.draw(results / f"{part.name}.png")
        body = curve.markdown().split("\n", 2)[2].splitlines()
        return [*heading, *body, "", f"![{part.axis}](results/{part.name}.png)", ""]
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
    if "unrelated" in comparison.base or comparison.ood_metric:
        found = transfer(comparison)
        found.draw(results / f"{part.name}-transfer.png")
        lines += [
            found.about,
            "",
            f"![what is gained and what is lost](results/{part.name}-transfer.png)",
            "",
        ]
    if (results / f"{part.name}-dilution.png").is_file():
        data = json.loads((results / f"{part.name}-dilution.json").read_text(encoding="utf-8"))
        lines += [data["about"], "", f"![what the memory keeps](results/{part.name}-dilution.png)", ""]
    return lines


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
