"""The plots of an evaluation: risk against coverage, where on the grid the laws differ, and the pictures themselves.

In: tables and pictures. Out: PNG files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ciar.benchmarks.evaluation.rollout import Table
from ciar.benchmarks.evaluation.selective import ORACLE, positions
from ciar.training.ranking import risk_curve

LINES = {
    "uncertainty": ("U", "#D55E00", "-"),
    "ambiguity": ("Ω", "#E69F00", "-"),
    "entropy": ("entropy", "#0072B2", "-"),
    "max probability": ("max probability", "#56B4E9", "-"),
    "margin": ("margin", "#009E73", "--"),
    "random": ("random", "#999999", ":"),
    ORACLE: ("oracle: knows the TV", "#000000", "-"),
}
"""Score -> label, colour (Okabe and Ito), line; discrete sets are drawn in `SETS`."""
SETS = (("#CC79A7", "-."), ("#CC79A7", ":"))
TILE = 128
"""Side of a picture on the contact sheet, in pixels."""


def write_risk_coverage(tables: Mapping[str, Table], path: Path) -> None:
    """One panel for each context (title -> table): mean TV among the accepted against their share, all groups pooled.

    A cross marks what the gate did. Raises OSError if the file cannot be written.
    """
    figure = Figure(figsize=(6.5 * len(tables), 5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        _risk_coverage(axes, table)
        axes.set_title(title)
    panels[0].set_ylabel("risk: mean TV(cloud, drafter) among accepted tokens")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _risk_coverage(axes: Axes, table: Table) -> None:
    found = positions(table)
    coverage = np.arange(1, len(found.tv) + 1) / len(found.tv)
    sets = iter(SETS)
    for name, score in found.scores.items():
        if name == "disparity":
            continue
        label, colour, line = LINES.get(name) or (name, *next(sets))
        axes.plot(coverage, risk_curve(score, found.tv), line, color=colour, label=label, linewidth=1.3)
    if 0 < found.asked.sum() < len(found.asked):
        accepted = ~found.asked
        axes.plot(accepted.mean(), found.tv[accepted].mean(), "x", color="#D55E00", markersize=9, label="the gate")
    axes.set_xlabel("coverage: share of tokens accepted")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.grid(linewidth=0.3)


def write_grid(tables: Mapping[str, Table], height: int, width: int, path: Path) -> None:
    """Where on the grid of tokens the laws differ, and where the gate asks: a row of panels for each context.

    Positions of the prefix are left white. Raises OSError if the file cannot be written.
    """
    figure = Figure(figsize=(11, 3.6 * len(tables)), layout="constrained")
    FigureCanvasAgg(figure)
    for row, (title, table) in zip(figure.subplots(len(tables), 3, squeeze=False), tables.items(), strict=True):
        drafted = np.arange(table.tv.shape[1]) >= table.num_prefix
        columns = {
            "mean TV(cloud, drafter)": table.tv.mean(0),
            "drawn tokens differ": (table.drafted != table.cloud).mean(0),
            "the gate asks": table.asked.mean(0),
        }
        for axes, (name, values) in zip(row, columns.items(), strict=True):
            if name == "the gate asks" and values[drafted].min() == 1:
                axes.set_axis_off()  # teacher-forced: there is no gate
                continue
            grid = np.where(drafted, values, np.nan).reshape(height, width)
            shown = axes.imshow(grid, cmap="viridis", vmin=0, vmax=1 if name == "the gate asks" else None)
            figure.colorbar(shown, ax=axes, shrink=0.8)
            axes.set_title(f"{title}: {name}", fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
    figure.savefig(path, dpi=110)


def write_contact_sheet(
    pictures: Mapping[str, NDArray[np.uint8]], prompts: Sequence[str], path: Path, *, count: int = 24
) -> None:
    """The first `count` pictures (N, H, W, 3) of each mode side by side, two prompts a row.

    Raises OSError if the file cannot be written.
    """
    count, gap, label = min(count, len(prompts)), 6, 18
    cell_width, cell_height = len(pictures) * (TILE + gap) + 3 * gap, TILE + label + gap
    num_rows = -(-count // 2)
    canvas = Image.new("RGB", (2 * cell_width, label + num_rows * cell_height), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for column in range(min(2, count)):
        for step, mode in enumerate(pictures):
            pen.text((column * cell_width + gap + step * (TILE + gap), 3), mode, fill="#555555", font=font)
    for index in range(count):
        x, y = (index % 2) * cell_width + gap, label + (index // 2) * cell_height
        pen.text((x, y), prompts[index], fill="black", font=font)
        for step, shown in enumerate(pictures.values()):
            tile = Image.fromarray(shown[index]).resize((TILE, TILE), Image.Resampling.NEAREST)
            corner = (x + step * (TILE + gap), y + label)
            canvas.paste(tile, corner)
            pen.rectangle((corner[0] - 1, corner[1] - 1, corner[0] + TILE, corner[1] + TILE), outline="#CCCCCC")
    canvas.save(path)
