"""Scaling as one picture."""

from __future__ import annotations

from pathlib import Path

from benchmarks.grids import Record

COLOURS = {"prefix-tuning-plus": "#1a7f5a", "prefix-tuning": "#3d6cb3"}
OTHER = "#b5473c"


def draw(tables: list[Record], path: Path) -> None:
    """Write an SVG: a panel an axis, both axes logarithmic; bars are quartiles."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = 3
    lines = -(-len(tables) // columns)
    with matplotlib.rc_context({"svg.hashsalt": "scaling", "font.size": 8}):
        figure = Figure(figsize=(9.6, 2.7 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False).flat
        for panel, table in zip(panels, tables, strict=False):
            for name in dict.fromkeys(p["variant"] for p in table["points"]):
                points = sorted((p["value"], *p["added_ms"]) for p in table["points"] if p["variant"] == name)
                values, medians, low, high = zip(*points, strict=True)
                errors = (
                    [max(m - x, 0.0) for m, x in zip(medians, low, strict=True)],
                    [max(x - m, 0.0) for m, x in zip(medians, high, strict=True)],
                )
                colour = COLOURS.get(name, OTHER)
                panel.errorbar(values, medians, errors, marker="o", markersize=3, color=colour, label=name)
            panel.set_xscale("log", base=2)
            panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
            panel.set_xticks(values, [str(v) for v in values])
            panel.minorticks_off()
            panel.set_title(table["axis"], loc="left", fontsize=9)
            panel.legend(fontsize=6, frameon=False)
        for panel in list(panels):
            panel.set_visible(False)
        figure.supylabel("CPU milliseconds beyond the floor", fontsize=8)
        figure.savefig(path, format="svg", metadata={"Date": None})
