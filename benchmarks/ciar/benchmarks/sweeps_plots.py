"""Plots of sweeps, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import PercentFormatter

from ciar.benchmarks.methods import BASE
from ciar.benchmarks.plots import LINES, MARKERS
from ciar.benchmarks.sweeps import FIGURES, Panel, Point, Sweep, X

LOG_TIMES = ("time", "preview")
MOST_TICKS = 5
"""Up to so many values of a knob are marked on the axis by themselves."""


def write_sweep_plot(sweep: Sweep, points: Sequence[Point], path: Path) -> None:
    """Every panel of a sweep side by side. Raises OSError if the file cannot be written."""
    canvas = Canvas(figsize=(5.2 * len(sweep.panels), 4.8), layout="constrained")
    FigureCanvasAgg(canvas)
    for index, panel in enumerate(sweep.panels):
        _panel(canvas.add_subplot(1, len(sweep.panels), index + 1), sweep, panel, points, legend=index == 0)
    canvas.suptitle(sweep.question, fontsize=11)
    canvas.savefig(path, dpi=110)


def _panel(axes: Axes, sweep: Sweep, panel: Panel, points: Sequence[Point], *, legend: bool) -> None:
    lines: dict[str, list[tuple[float, float, str]]] = {}
    for (series, x), row in points:
        label = "" if x is None else f"{x:g}"
        across = x if panel.x == X else FIGURES[panel.x].of(row)
        up = FIGURES[panel.y].of(row)
        on_axis = panel.x == X or row.method != BASE  # the base is a reference, not a point of a trade
        if across is not None and up is not None and on_axis:
            lines.setdefault(series, []).append((across, up, label))
    for index, (series, line) in enumerate(lines.items()):
        xs, ys, _labels = zip(*line, strict=True)
        marker, colour = MARKERS[index % len(MARKERS)], LINES[index % len(LINES)]
        axes.plot(xs, ys, label=series, marker=marker, color=colour, linewidth=1, markersize=5)
        if panel.x != X:
            for x, y, label in line:
                axes.annotate(label, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7, color=colour)
    values = sorted({place.x for place, _ in points if place.x is not None})
    if panel.x == X and len(values) <= MOST_TICKS:
        axes.set_xticks(values, [f"{x:g}" for x in values])
    if panel.y == "speed-up":
        axes.axhline(1, color="#666666", linewidth=1, linestyle="--")
    _scale(axes, sweep, panel)
    axes.set_xlabel(sweep.x_label if panel.x == X else FIGURES[panel.x].label)
    axes.set_ylabel(FIGURES[panel.y].label)
    axes.grid(linewidth=0.3)
    if legend and lines:
        axes.legend(fontsize=8)


def _scale(axes: Axes, sweep: Sweep, panel: Panel) -> None:
    """Shares as percentages; times and round trips over decades."""
    for axis, name in ((axes.xaxis, panel.x), (axes.yaxis, panel.y)):
        if name != X and FIGURES[name].form(0.5).endswith("%"):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if panel.y in LOG_TIMES or (sweep.finds_crossing and panel.y == "speed-up"):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="minor", labelsize=7)


def write_cost_plot(costs: Mapping[int, Mapping[str, float]], path: Path) -> None:
    """Microseconds of each score by vocabulary size. Raises OSError if the file cannot be written."""
    canvas = Canvas(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    for index, name in enumerate(next(iter(costs.values()))):
        axes.plot(
            list(costs),
            [row[name] for row in costs.values()],
            label=name,
            marker=MARKERS[index % len(MARKERS)],
            color=LINES[index % len(LINES)],
            linewidth=1,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(costs), [str(size) for size in costs])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("vocabulary V")
    axes.set_ylabel("µs a token, fastest round")
    axes.set_title("What a score of doubt costs, in numpy on one thread")
    axes.grid(linewidth=0.3)
    axes.legend(fontsize=8)
    canvas.savefig(path, dpi=110)
