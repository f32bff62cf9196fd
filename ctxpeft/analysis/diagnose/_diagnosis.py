"""What an instrument found: a table, plain data and a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctxpeft.extras import require
from ctxpeft.files import replacing, write_json, write_text

Cell = str | int | float | None
INK, MUTED = "#1b1f24", "#8b949e"


@dataclass(frozen=True)
class Diagnosis:
    """name: of the instrument. about: one sentence on what the numbers are. rows: as `columns` says.

    paint: draws it into a matplotlib figure; None where a table says all.
    """

    name: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    paint: Callable[[Any], None] | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, a mapping a row."""
        return {
            "instrument": self.name,
            "about": self.about,
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
        }

    def markdown(self) -> str:
        """The table as Markdown, its sentence above it."""
        lines = ["| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        lines += ["| " + " | ".join(shown(cell) for cell in row) + " |" for row in self.rows]
        return f"## {self.name}\n\n{self.about}\n\n" + "\n".join(lines) + "\n"

    def draw(self, path: Path) -> bool:
        """Write the picture as PNG; False where there is none."""
        if self.paint is None:
            return False
        require("matplotlib", "plots", "the picture of a diagnosis")
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure = plt.figure(figsize=(7.5, 4.2), dpi=150, layout="constrained")
        try:
            self.paint(figure)
            with replacing(path) as temporary:
                figure.savefig(temporary, format="png")
        finally:
            plt.close(figure)
        return True

    def write(self, folder: Path) -> None:
        """`name.md`, `name.json` and, where there is one, the picture `name.png`."""
        write_text(folder / f"{self.name}.md", self.markdown())
        write_json(folder / f"{self.name}.json", self.to_dict())
        self.draw(folder / f"{self.name}.png")

    def _repr_html_(self) -> str:
        from ctxpeft.html import table

        return table(self.columns, [[_text(cell) for cell in row] for row in self.rows], before=self.about)

    def __repr__(self) -> str:
        return f"<diagnosis {self.name}: {len(self.rows)} rows of {', '.join(self.columns)}>"

    def __str__(self) -> str:
        return self.markdown()


def shown(cell: Cell) -> str:
    """A cell as text in a Markdown table."""
    return _text(cell).replace("|", "\\|")


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def plain_axes(axes: Any) -> None:
    """The look that all pictures share."""
    axes.tick_params(labelsize=8.5, length=0)
    axes.grid(color=MUTED, alpha=0.2, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def heats(figure: Any, maps: Mapping[str, Any], across: str) -> None:
    """Heat maps of layers by `across`, side by side on one scale."""
    low = min(0.0, *(float(values.min()) for values in maps.values()))
    high = max(float(values.max()) for values in maps.values())
    parts = figure.subfigures(1, len(maps)) if len(maps) > 1 else [figure]
    for part, (title, values) in zip(parts, maps.items(), strict=True):
        _heat(part, values, title, across, low, high if high > low else low + 1.0)


def _heat(figure: Any, values: Any, title: str, across: str, low: float, high: float) -> None:
    axes = figure.subplots()
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=low, vmax=high)
    axes.set_xlabel(across, fontsize=8.5)
    axes.set_ylabel("layer", fontsize=8.5)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.tick_params(labelsize=8.5, length=0)
    figure.colorbar(image, ax=axes)
