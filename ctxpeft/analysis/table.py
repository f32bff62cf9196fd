"""A comparison as a table, for a terminal and for a document."""

from __future__ import annotations

from rich.table import Table

from ctxpeft.analysis.compare import Comparison, Entry

HEADER = (
    "variant",
    "trainable",
    "deployed",
    "learning rate",
    "{metric}",
    "difference [95 %]",
    "verdict",
    "seconds",
)


def rows(result: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and cells; a column `ood` where the task has such data."""
    header = [cell.format(metric=f"test {result.metric}") for cell in HEADER]
    has_ood = any(entry.ood is not None for entry in result.entries)
    cells = [_row(entry) for entry in result.entries]
    if has_ood:
        header.insert(5, f"ood {result.metric}")
        for entry, row in zip(result.entries, cells, strict=True):
            row.insert(5, "" if entry.ood is None else f"{entry.ood:.3f}")
    return header, cells


def markdown(result: Comparison) -> str:
    """A Markdown table, with what was measured and how below it."""
    header, cells = rows(result)
    lines = [
        f"# {result.task} on {result.model.rstrip('/').rpartition('/')[2]}",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in cells),
        "",
        footnote(result),
        *(f"\n{note}." for note in result.notes),
    ]
    return "\n".join(lines) + "\n"


def footnote(result: Comparison) -> str:
    """One paragraph: what the numbers are."""
    direction = "higher" if result.greater_is_better else "lower"
    seeds = len(result.seeds)
    spread = "mean ± standard deviation over" if seeds > 1 else "one value from"
    rates = "tuned on validation data" if result.tuned else "from the variants' hints, not tuned here"
    return (
        f"Test {result.metric} ({direction} is better): {spread} {seeds} seed{'s' if seeds > 1 else ''}, "
        f"{result.steps} steps, {result.test_examples} test examples. Learning rates {rates}. Differences are to "
        f"{result.entries[0].name}, paired by seed and example, with a 95 % bootstrap interval "
        f"({result.resamples:,} resamples of seeds and examples; not corrected for the number of comparisons)."
    )


def rich_table(result: Comparison) -> Table:
    """The same table for a terminal."""
    header, cells = rows(result)
    table = Table(
        title=f"{result.task}, {len(result.seeds)} seeds, {result.steps} steps", title_justify="left"
    )
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 or name == "verdict" else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    return table


def _row(entry: Entry) -> list[str]:
    spread = f"{entry.mean:.3f}" if entry.sd is None else f"{entry.mean:.3f} ± {entry.sd:.3f}"
    difference, verdict = "reference", ""
    if entry.difference is not None:
        d = entry.difference
        difference, verdict = f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]", d.word
    rate = f"{entry.learning_rate:.2g}" if entry.trainable else ""
    return [
        entry.name,
        f"{entry.trainable:,}",
        f"{entry.deployed:,}",
        rate,
        spread,
        difference,
        verdict,
        f"{entry.seconds:.0f}",
    ]
