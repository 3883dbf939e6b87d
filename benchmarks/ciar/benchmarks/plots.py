"""bench.png: speed-up by method and profile, and where the time of each method goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from ciar.benchmarks.figures import Row
from ciar.benchmarks.methods import BASE
from ciar.benchmarks.profiles import FLOOR

PARTS = (
    ("network_s", "waiting for the network", "#D55E00"),
    ("cloud_s", "waiting for the cloud", "#999999"),
    ("drafting_s", "drafting", "#56B4E9"),
    ("other_s", "other", "#F0E442"),
)
"""Field, label, colour (Okabe and Ito)."""

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^v<>PX*hp"


def write_plots(rows: Sequence[Row], path: Path) -> None:
    """Write the figure as PNG. Raises OSError if it cannot be written."""
    rows = [row for row in rows if row.profile != FLOOR.name]
    profiles = list(dict.fromkeys(row.profile for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    num_lines = -(-len(profiles) // 2)
    height = 4.5 + num_lines * (1.2 + 0.3 * len(methods))
    figure = Figure(figsize=(13, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1 + num_lines, 2, height_ratios=[4.5, *[1.2 + 0.3 * len(methods)] * num_lines])
    _speed_ups(figure.add_subplot(grid[0, :]), rows, profiles, methods)
    for index, profile in enumerate(profiles):
        axes = figure.add_subplot(grid[1 + index // 2, index % 2])
        _times(axes, [row for row in rows if row.profile == profile], profile, legend=index == 0)
    figure.savefig(path, dpi=110)


def _speed_ups(axes: Axes, rows: Sequence[Row], profiles: Sequence[str], methods: Sequence[str]) -> None:
    for index, method in enumerate(name for name in methods if name != BASE):
        points = [
            (profiles.index(row.profile) + (index - len(methods) / 2) * 0.03, row.speed_up)
            for row in rows
            if row.method == method and row.speed_up is not None
        ]
        x, spreads = [at for at, _ in points], [spread for _, spread in points]
        axes.errorbar(
            x,
            [spread.p50 for spread in spreads],
            yerr=(
                [spread.p50 - spread.p25 for spread in spreads],
                [spread.p75 - spread.p50 for spread in spreads],
            ),
            label=method,
            color=LINES[index % len(LINES)],
            marker=MARKERS[index % len(MARKERS)],
            linewidth=1,
            capsize=2,
        )
    axes.axhline(1, color="#666666", linewidth=1, linestyle="--")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]))
    axes.yaxis.set_major_formatter("{x:g}×")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xticks(range(len(profiles)), profiles)
    axes.set_ylabel("speed-up over the cloud alone")
    axes.set_title("Speed-up by network: median and middle half over pictures (dashed: the cloud alone)")
    axes.grid(axis="y", linewidth=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(ncols=2, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _times(axes: Axes, rows: Sequence[Row], profile: str, *, legend: bool) -> None:
    names = [row.method for row in rows]
    left = [0.0] * len(rows)
    for field, label, colour in PARTS:
        widths = [getattr(row, field) for row in rows]
        axes.barh(names, widths, left=left, label=label, color=colour, edgecolor="white", linewidth=0.5)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_title(f"{profile}: mean seconds of a picture, by what they are spent on", fontsize=10)
    axes.tick_params(labelsize=8)
    if legend:
        axes.legend(fontsize=8, loc="best")
