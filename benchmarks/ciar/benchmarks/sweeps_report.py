"""A sweep for people: its table, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ciar.benchmarks.report import Sheet, header
from ciar.benchmarks.sweeps import FIGURES, Point, Sweep, crossings

SHORT_RUN = "Medians and means over the pictures named above: with few of them the last digits are noise."


def sheet(sweep: Sweep, points: Sequence[Point]) -> Sheet:
    """A line for each point; without numbers to turn, no column for them."""
    has_x = any(point.place.x is not None for point in points)
    return Sheet(
        f"sweep {sweep.name}: {sweep.question}",
        ("line", *((sweep.x_label,) if has_x else ()), *sweep.columns),
        [
            (
                point.place.series,
                *((_x(point),) if has_x else ()),
                *(_cell(name, point) for name in sweep.columns),
            )
            for point in points
        ],
    )


def _x(point: Point) -> str:
    return "–" if point.place.x is None else f"{point.place.x:g}"


def remarks(sweep: Sweep, points: Sequence[Point]) -> list[str]:
    """What follows from the points, and how far to trust them."""
    lines = []
    if sweep.finds_crossing:
        where = ", ".join(f"{series} {at}" for series, at in crossings(points).items())
        lines.append(f"Falls behind the cloud alone at ({sweep.x_label}, linear between points): {where}.")
    return [*lines, SHORT_RUN]


def markdown(sweep: Sweep, points: Sequence[Point], summary: Mapping[str, Any], placement: str) -> str:
    """The report as a file of its own."""
    table = sheet(sweep, points)
    return "\n".join(
        [
            f"# Sweep: {sweep.name}",
            "",
            sweep.question,
            "",
            "```",
            *header(summary, placement),
            "```",
            "",
            f"![{sweep.name}](sweep-{sweep.name}.png)",
            "",
            *markdown_table(table),
            "",
            *(f"- `{name}`: {FIGURES[name].label}" for name in sweep.columns),
            "",
            *remarks(sweep, points),
            "",
        ]
    )


def markdown_table(table: Sheet) -> list[str]:
    """The lines of a table."""
    return [
        f"| {' | '.join(table.columns)} |",
        "|---|" + "---:|" * (len(table.columns) - 1),
        *(f"| {' | '.join(row)} |" for row in table.rows),
    ]


def records(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The points in JSON's types."""
    return [{"line": point.place.series, "x": point.place.x, **point.row.to_dict()} for point in points]


def _cell(name: str, point: Point) -> str:
    value = FIGURES[name].of(point.row)
    return "–" if value is None else FIGURES[name].form(value)
