"""bench.html: the report for who decides, in one file: tables, plot, machine, methods, and how to read it all.

In: what `report` shows in a terminal, and the plot's bytes. Out: HTML that needs nothing else, plot included. All text
is escaped by the template engine: prompts and profiles come from outside.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from ciar.benchmarks.figures import Row
from ciar.benchmarks.methods import BASE, find_method
from ciar.benchmarks.profiles import FLOOR, Profile
from ciar.benchmarks.report import GLOSSARY, QUALITY, all_sheets, footer, header

TEMPLATE = "bench.html.j2"

EVEN = 0.02
"""A speed-up within 1 ± this is called neither faster nor slower."""


class Cell(NamedTuple):
    """A speed-up in the overview."""

    text: str
    verdict: str
    """faster, slower, even or none: the cell's class."""


def html(
    summary: Mapping[str, Any], rows: Sequence[Row], profiles: Mapping[str, Profile], placement: str, plot: bytes
) -> str:
    """The report; plot: a PNG's bytes."""
    environment = Environment(
        loader=PackageLoader("ciar.benchmarks", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    configuration = summary["configuration"]
    return environment.get_template(TEMPLATE).render(
        facts=[(line[:10].strip(), line[10:]) for line in header(summary, placement)],
        networks=list(profiles),
        overview=overview(rows, list(profiles), configuration["methods"]),
        base=BASE,
        base_ms={row.profile: f"{row.seconds.p50 * 1000:.0f}" for row in rows if row.method == BASE},
        plot=base64.b64encode(plot).decode("ascii"),
        sheets=list(all_sheets(rows, profiles)),
        methods={name: find_method(name).about for name in configuration["methods"]},
        profiles={name: (profile.describe(), profile.source) for name, profile in profiles.items()},
        floor=FLOOR.name,
        prompts=configuration["prompts"],
        seeds=configuration["seeds"],
        glossary=GLOSSARY,
        notes=list(footer(summary))[1:-1],
        quality=QUALITY.replace("`", ""),
    )


def overview(rows: Sequence[Row], profiles: Sequence[str], methods: Sequence[str]) -> dict[str, list[Cell]]:
    """Median speed-up of each method through each network."""
    found = {(row.profile, row.method): row.speed_up for row in rows if row.speed_up is not None}
    return {
        method: [_cell(spread.p50 if (spread := found.get((profile, method))) else None) for profile in profiles]
        for method in methods
        if method != BASE
    }


def _cell(ratio: float | None) -> Cell:
    if ratio is None:
        return Cell("–", "none")
    verdict = "even" if abs(ratio - 1) <= EVEN else "faster" if ratio > 1 else "slower"
    return Cell(f"{ratio:.2f}×", verdict)
