"""The same comparison at several sizes: data efficiency with 1, 2, 4, ... training examples per class, and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctxpeft.analysis.compare import compare
from ctxpeft.analysis.comparison import Comparison
from ctxpeft.analysis.diagnose._diagnosis import INK, MUTED, plain_axes
from ctxpeft.analysis.statistics import holm
from ctxpeft.analysis.table import counted, p_value
from ctxpeft.errors import DataError, SpecError
from ctxpeft.files import replacing, write_json, write_text
from ctxpeft.folders import COMPARISON, only_for
from ctxpeft.training import Bench, Method, VariantLike


@dataclass(frozen=True)
class Curve:
    """One comparison a size, smallest first; the p-values of all of them are corrected together.

    axis: what the sizes count.
    """

    axis: str
    sizes: list[int]
    comparisons: list[Comparison]

    @classmethod
    def of(cls, axis: str, comparisons: Mapping[int, Comparison]) -> Curve:
        """A curve of comparisons by size, with all their differences as one family."""
        sizes = sorted(comparisons)
        return cls(axis, sizes, _corrected([comparisons[size] for size in sizes]))

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what is shared, and a point a variant and size."""
        first = self.comparisons[0]
        shared = ("model", "task", "metric", "greater_is_better", "seeds", "steps", "test_examples", "tuned")
        points = [
            {"size": size, "train_examples": comparison.train_examples, **point}
            for size, comparison in zip(self.sizes, self.comparisons, strict=True)
            for point in comparison.to_dict()["entries"]
        ]
        plain = first.to_dict()
        return {"axis": self.axis} | {name: plain[name] for name in (*shared, "version")} | {"points": points}

    def markdown(self) -> str:
        """A row a variant, a column a size; below it how to read it."""
        first = self.comparisons[0]
        header, cells = self._table()
        lines = [
            f"# {first.task} on {first.model.rstrip('/').rpartition('/')[2]}: {self.axis}",
            "",
            "| " + " | ".join(header) + " |",
            "|" + "---|" * len(header),
            *("| " + " | ".join(row) + " |" for row in cells),
        ]
        return "\n".join([*lines, "", self.footnote()]) + "\n"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Header and cells."""
        cells = []
        for index, entry in enumerate(self.comparisons[0].entries):
            points = [self._cell(comparison, index) for comparison in self.comparisons]
            cells.append([entry.name, f"{entry.trainable:,}", *points])
        return ["variant", "trainable", *map(str, self.sizes)], cells

    def __repr__(self) -> str:
        names = ", ".join(entry.name for entry in self.comparisons[0].entries)
        return f"<curve of {names} by {self.axis}: {self.sizes}>"

    def __str__(self) -> str:
        return self.markdown()

    def _repr_html_(self) -> str:
        from ctxpeft.html import table

        header, cells = self._table()
        return table(header, cells, after=self.footnote())

    def footnote(self) -> str:
        """What the numbers are."""
        first = self.comparisons[0]
        count = sum(len(comparison.entries) - 1 for comparison in self.comparisons)
        rates = "from the variants' hints, not tuned here"
        if first.tuned:
            rates = "tuned for every variant and size on validation data"
        over = counted(first.seeds, "seed")
        if first.draws:
            over = f"{counted(first.seeds, 'draw')} of the training examples, each with its own seed"
            rates += " larger than the training data" if first.tuned else ""
        return (
            f"Test {first.metric} by {self.axis}, mean ± standard deviation over {over}; {first.steps} steps, "
            f"{first.test_examples:,} test examples. Learning rates {rates}. In brackets the p-value of the difference "
            f"to {first.entries[0].name}, paired by seed and example, corrected for all {count} comparisons of this "
            "table by Holm's method; * marks those below 0.05."
        )

    def draw(self, path: Path) -> None:
        """Write a PNG: a line a variant, dots are draws, bars are 95 % intervals over draws and examples."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        first = self.comparisons[0]
        figure, axes = plt.subplots(figsize=(7.5, 4.6), dpi=150, layout="constrained")
        least = min(filter(None, self.sizes), default=1) / 2  # where zero stands on a logarithmic axis
        for index, entry in enumerate(first.entries):
            points = [comparison.entries[index] for comparison in self.comparisons]
            beside = 2 ** (0.5 * (index / max(len(first.entries) - 1, 1) - 0.5))  # side by side at each size
            places = [max(size, least) * beside for size in self.sizes]
            line = axes.errorbar(
                places,
                [p.mean for p in points],
                yerr=[
                    [p.mean - p.interval.low for p in points],
                    [p.interval.high - p.mean for p in points],
                ],
                marker="o",
                markersize=5,
                linewidth=1.4,
                elinewidth=2.4,
                label=entry.name,
            )
            line[2][0].set_alpha(0.35)
            for place, point in zip(places, points, strict=True):
                axes.scatter(
                    [place] * len(point.values), point.values, s=7, color=line[0].get_color(), alpha=0.5
                )
        axes.set_xscale("log", base=2)
        axes.set_xticks([max(size, least) for size in self.sizes], [str(size) for size in self.sizes])
        axes.minorticks_off()
        axes.set_xlabel(self.axis, fontsize=8.5)
        direction = "higher" if first.greater_is_better else "lower"
        axes.set_ylabel(f"test {first.metric} ({direction} is better)", fontsize=8.5)
        axes.set_title(
            f"{first.task} on {Path(first.model).name}: "
            f"{counted(first.seeds, 'draw' if first.draws else 'seed')} (dots), bars are 95 % intervals",
            loc="left",
            fontsize=10,
            color=INK,
        )
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
        axes.spines["bottom"].set_color(MUTED)
        plain_axes(axes)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
        plt.close(figure)

    def write(self, out: Path) -> None:
        """`curve.md`, `curve.png` and `curve.json`."""
        write_text(out / "curve.md", self.markdown())
        self.draw(out / "curve.png")
        write_json(out / "curve.json", self.to_dict())

    @staticmethod
    def _cell(comparison: Comparison, index: int) -> str:
        entry = comparison.entries[index]
        spread = f"{entry.mean:.3f}" if entry.sd is None else f"{entry.mean:.3f} ± {entry.sd:.3f}"
        if entry.adjusted is None:
            return spread
        return f"{spread} ({p_value(entry.adjusted)}{'*' if entry.significant else ''})"


def data_curve(
    bench: Bench,
    variants: Sequence[VariantLike | Method],
    out: Path,
    per_class: Sequence[int],
    **options: Any,
) -> Curve:
    """Compare the variants at every number of training examples per class; every seed draws its own examples.

    Draws are nested: what a seed draws at 1 is among what it draws at 2. The number of steps, the validation and the
    test data are the same at every size.

    Args:
        bench: a classification whose training data have not been subsampled.
        variants: as in `compare`.
        out: gets a comparison in `per-class-N/` for every size, and `curve.json`, `curve.md` and `curve.png`.
        per_class: the sizes.
        options: of `compare`.

    Raises:
        DataError: the task is no classification, or its training data are a subsample already.
        SpecError: no sizes, or one below 1; and what `compare` raises.
    """
    sizes = sorted(set(per_class))
    if not sizes or sizes[0] < 1:
        raise SpecError(f"expected numbers of examples above zero, such as 1,2,4,8, found {list(per_class)}")
    task = bench.task
    if task.kind != "classification":
        raise DataError(f"{task.spec.name} is no classification: there are no examples per class to vary")
    if task.spec.draw != "seed" and (task.spec.per_class or task.spec.limit):
        raise DataError(
            f"{task.spec.name} is a subsample already: leave out per_class and limit, or set draw=seed"
        )
    only_for(COMPARISON, out)
    comparisons = {}
    for size in sizes:
        spec = task.spec.model_copy(update={"per_class": size, "limit": None, "draw": "seed"})
        drawing = replace(bench, task=replace(task, spec=spec))
        comparisons[size] = compare(drawing, variants, out / f"per-class-{size}", **options)
    curve = Curve.of("training examples per class", comparisons)
    curve.write(out)
    return curve


def _corrected(comparisons: list[Comparison]) -> list[Comparison]:
    """All differences of all sizes as one family."""
    found = [e.difference.p or 0.0 for c in comparisons for e in c.entries if e.difference is not None]
    adjusted = iter(holm(found))
    return [
        replace(
            c,
            entries=[e if e.difference is None else replace(e, adjusted=next(adjusted)) for e in c.entries],
        )
        for c in comparisons
    ]
