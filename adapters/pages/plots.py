"""The figures of a run for a notebook, drawn by matplotlib without any state that others share."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from gramian.adapters.pages.numerals import finite, mean, number, per_cent
from gramian.adapters.pages.records import Run, run_of
from gramian.adapters.pages.runs import clouds_of
from gramian.adapters.pages.seconds import spent
from gramian.extras import need

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

__all__ = ["plot"]

WRITTEN = 500  # cells of a heat map at most that hold their number
MARKERS = ("o", "s", "^", "D", "x", "+", "v", "_")  # those of the page
COLOURS = ("#1a5c86", "#a34a0b", "#2c6e4a", "#7a3b8f", "#8a6a00", "#a02b4c", "#4a5a6a", "#0e6f73")


def plot(document: Mapping[str, Any]) -> Figure:
    """Draw what the page of a run shows: errors and sparsity or units that stay by block and kind, held-out against calibration
    error, perplexity before and after where it was measured, and where the seconds went.

    ImportError where matplotlib is not installed; ValueError for a document without rows.
    """
    need("report", ("matplotlib",), "a figure")
    from matplotlib.figure import Figure

    drawing: Any = type("Drawing", (Figure,), {"_repr_png_": png_of})  # a notebook shows it, whether or not pyplot is there
    run = run_of(document)
    if run is None:
        raise ValueError("this report has no rows, so that there is nothing to draw")
    panels = ["heldout", "error", "share", "scatter"] if run.has_heldout else ["error", "share"]
    panels += ["perplexity", "seconds"] if run.measured else ["seconds"]
    lines = -(-len(panels) // 2)
    height = max(2.6, min(14.0, 1.2 + 0.24 * len(run.grid.blocks)))
    figure: Figure = drawing(figsize=(11.0, height * min(2, lines) + 3.0 * max(0, lines - 2)), layout="constrained")
    grid = figure.add_gridspec(lines, 2, height_ratios=[height] * min(2, lines) + [3.0] * max(0, lines - 2))
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(grid[place // 2, place % 2])
        if panel == "heldout":
            draw_map(axes, run, run.errors(True), "error on held-out text, %", True)
        elif panel == "error":
            draw_map(axes, run, run.errors(False), "error on calibration text, %", True)
        elif panel == "share":
            title = "zeros, %" if run.kind == "weights" else "units that stay, %"
            draw_map(axes, run, [row.share for row in run.rows], title, False)
        elif panel == "scatter":
            draw_scatter(axes, run)
        elif panel == "perplexity":
            draw_perplexity(axes, run)
        else:
            draw_seconds(axes, run)
    figure.suptitle(f"{run.title}, {run.method}")
    return figure


def png_of(figure: Figure) -> bytes:
    """A figure as a PNG."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()


def draw_map(axes: Any, run: Run, values: Sequence[float | None], title: str, logarithmic: bool) -> None:
    """A heat map."""
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    grid = run.grid
    cells = np.full((len(grid.blocks), len(grid.kinds)), np.nan)
    for (block, kind), places in grid.cells.items():
        middle = mean(values[place] for place in places)
        cells[grid.blocks.index(block), grid.kinds.index(kind)] = np.nan if middle is None else middle
    positive = [value for value in cells.ravel() if np.isfinite(value) and value > 0]
    both = [value for value in finite([*run.errors(True), *run.errors(False)]) if value > 0]
    norm: Any = Normalize(0.0, 1.0)
    if logarithmic:
        norm = LogNorm(min(both), max(max(both), 1.001 * min(both))) if positive else Normalize(0.0, 1.0)
    masked = np.ma.masked_where(~(cells > 0), cells) if logarithmic else np.ma.masked_invalid(cells)
    axes.imshow(masked, cmap="Blues", norm=norm, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(grid.kinds)), grid.labels, rotation=0 if len(grid.kinds) < 4 else 40, ha="center")
    step = max(1, len(grid.blocks) // 24)
    names = [str(number if number is not None else "–") for _, number in grid.blocks]
    axes.set_yticks(range(0, len(grid.blocks), step), names[::step])
    axes.set_ylabel("block")
    axes.set_title(title, fontsize="medium")
    if cells.size <= WRITTEN:
        for (line, column), value in np.ndenumerate(cells):
            if np.isfinite(value):
                bright = norm(value) < 0.55 if value > 0 or not logarithmic else True
                text = per_cent(float(value), spare=True)
                colour = "#14202b" if bright else "#ffffff"
                axes.text(column, line, text, ha="center", va="center", fontsize=7, color=colour)


def draw_scatter(axes: Any, run: Run) -> None:
    """Held-out against calibration error."""
    clouds = [cloud for cloud in clouds_of(run) if cloud.points]
    for place, cloud in enumerate(clouds):
        across, up = zip(*((100 * one, 100 * other) for one, other in cloud.points))
        marker, colour = MARKERS[place % len(MARKERS)], COLOURS[place % len(COLOURS)]
        open_mark = {} if marker in ("x", "+", "_") else {"facecolors": "none", "edgecolors": colour}
        axes.scatter(across, up, s=22, marker=marker, label=cloud.label, **(open_mark or {"color": colour}))
    if clouds:
        values = [100 * value for cloud in clouds for point in cloud.points for value in point]
        axes.plot([min(values), max(values)], [min(values), max(values)], linestyle="--", color="#777777", linewidth=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.legend(fontsize="x-small", frameon=False)
    axes.set_xlabel("error on calibration text, %")
    axes.set_ylabel("error on held-out text, %")
    axes.set_title("held-out against calibration error", fontsize="medium")


def draw_perplexity(axes: Any, run: Run) -> None:
    """Perplexity before and after."""
    values = [number(run.measured.get(name)) or 0.0 for name in ("dense", "pruned")]
    drawn = axes.barh(["before", "after"], values, color=["#c9c5bd", "#2f7396"])
    axes.bar_label(drawn, fmt="%.4g", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_title(f"perplexity, {run.measured.get('source', '')}", fontsize="medium")


def draw_seconds(axes: Any, run: Run) -> None:
    """Where the seconds went."""
    parts = spent(run)
    drawn = axes.barh([name for name, _ in parts], [seconds for _, seconds in parts], color="#2f7396")
    axes.bar_label(drawn, fmt="%.3g s", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_title("where the seconds went", fontsize="medium")
