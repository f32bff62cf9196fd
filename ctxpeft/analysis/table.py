"""A comparison as a table, for a terminal and for a document."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ctxpeft.analysis.comparison import Comparison, Entry

LEVEL = 0.05  # of the verdicts
HEADER = (
    "variant",
    "trainable",
    "deployed",
    "learning rate",
    "{metric}",
    "difference [95 %]",
    "p (Holm)",
    "verdict",
    "seconds",
)


def rows(result: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and cells; columns `ood` and `forgetting` where they were measured."""
    header = [cell.format(metric=f"test {result.metric}") for cell in HEADER]
    cells = [_row(entry) for entry in result.entries]
    other = {
        f"ood {result.ood_metric}": [entry.ood for entry in result.entries],
        "forgetting": [entry.forgetting for entry in result.entries],
    }
    for name, column in reversed(other.items()):
        if any(column):
            header.insert(5, name)
            for found, row in zip(column, cells, strict=True):
                row.insert(5, "" if found is None else f"{found.mean:.3f}")
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
    spread = "mean ± standard deviation over" if len(result.seeds) > 1 else "one value from"
    rates = "tuned on validation data" if result.tuned else "from the variants' hints, not tuned here"
    drawn = ", drawn anew by every seed" if result.draws else ""
    count = len(result.entries) - 1
    family = "one comparison" if count == 1 else f"the {count} comparisons of this table"
    text = (
        f"Test {result.metric} ({direction} is better): {spread} {counted(result.seeds, 'seed')}, "
        f"{result.steps} steps on {result.train_examples:,} training examples{drawn}, {result.test_examples:,} test "
        f"examples. Learning rates {rates}. Differences are to {result.entries[0].name}, paired by seed and example, "
        f"each with its own 95 % bootstrap interval ({result.resamples:,} resamples of seeds and examples). The "
        f"verdict is that of its p-value at 0.05, corrected for {family} by Holm's method."
    )
    if "unrelated" in result.base:
        text += (
            " Forgetting is the rise of the loss on unrelated text over the frozen base's, in nats a token."
        )
    return text


def rich_table(result: Comparison) -> Table:
    """The same table for a terminal."""
    header, cells = rows(result)
    table = Table(
        title=f"{result.task}, {counted(result.seeds, 'seed')}, {result.steps} steps", title_justify="left"
    )
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 or name == "verdict" else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    return table


def _row(entry: Entry) -> list[str]:
    spread = f"{entry.mean:.3f}" if entry.sd is None else f"{entry.mean:.3f} ± {entry.sd:.3f}"
    difference, p = "reference", ""
    if (d := entry.difference) is not None:
        difference, p = f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]", p_value(entry.adjusted)
    rate = f"{entry.learning_rate:.2g}" if entry.trainable and entry.learning_rate else ""
    return [
        entry.name,
        f"{entry.trainable:,}",
        f"{entry.deployed:,}",
        rate,
        spread,
        difference,
        p,
        entry.verdict,
        f"{entry.seconds:.0f}",
    ]


def counted(things: Sequence[object], name: str) -> str:
    """`1 seed`, `5 seeds`."""
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def p_value(p: float | None) -> str:
    """Three digits; below them `<0.001`, and `<0.05` where they would round up to the level of the verdicts."""
    if p is None:
        return ""
    if p < 0.001:
        return "<0.001"
    told = f"{p:.3f}"
    return f"<{LEVEL}" if p < LEVEL <= float(told) else told
