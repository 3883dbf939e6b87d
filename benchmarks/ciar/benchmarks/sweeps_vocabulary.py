"""The sweep over vocabularies: what continuous intervals and discrete sets cost a token as V grows (paper, figure 5).

Pure computation: no pair, no server, no pictures. Out: sweep-vocabulary.md, .png and .jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ciar.benchmarks.machine import environment
from ciar.benchmarks.report import Sheet
from ciar.benchmarks.sweeps import VOCABULARY
from ciar.benchmarks.sweeps_plots import write_cost_plot
from ciar.benchmarks.sweeps_report import markdown_table
from ciar.shared.errors import InvalidRequest

SIZES = (512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)

ABOUT = (
    "U is made from centre logits and radii by InterFuse; a set's doubt is the mass outside its k likeliest tokens, "
    "found by partial selection, which does not grow with k as a sort or a scan of sets would. Microseconds a token in "
    "numpy on one thread, fastest round; the drafter's graph computes U within its own pass."
)


def require_sizes(values: Sequence[float]) -> list[int]:
    """Vocabulary sizes. Raises InvalidRequest for what is none."""
    if not all(x == int(x) and 2 <= x <= 2**20 for x in values):
        raise InvalidRequest("values: a vocabulary is a whole number in [2, 1048576]")
    return sorted({int(x) for x in values})


def measure_costs(sizes: Sequence[int], on_start: Callable[[int], None]) -> dict[int, dict[str, float]]:
    """Size -> score -> microseconds a token. Raises InvalidRequest if the evaluation's packages are not installed."""
    try:
        from ciar.benchmarks.evaluation.scorecost import (
            score_costs,  # with training's packages, which no other sweep needs
        )
    except ModuleNotFoundError as exc:
        raise InvalidRequest(f"sweep: {VOCABULARY} needs {exc.name}: pip install 'ciar-cloud[train]'") from exc
    costs = {}
    for size in sizes:
        on_start(size)
        costs[size] = {name: timing.min_us for name, timing in score_costs(size).items()}
    return costs


def sheet(costs: Mapping[int, Mapping[str, float]]) -> Sheet:
    """A line for each size."""
    names = list(next(iter(costs.values())))
    return Sheet(
        "sweep vocabulary: what a score of doubt costs, µs a token",
        ("V", *names),
        [(str(size), *(f"{row[name]:.1f}" for name in names)) for size, row in costs.items()],
    )


def write(costs: Mapping[int, Mapping[str, float]], out: Path) -> dict[str, Any]:
    """All files; returns the summary. Raises OSError if one cannot be written."""
    machine = environment()
    records = [{"vocab_size": size, "us": dict(row)} for size, row in costs.items()]
    stem = out / f"sweep-{VOCABULARY}"
    lines = [json.dumps({"environment": machine}), *(json.dumps(record) for record in records)]
    stem.with_suffix(".jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    write_cost_plot(costs, stem.with_suffix(".png"))
    text = [
        f"# Sweep: {VOCABULARY}",
        "",
        ABOUT,
        "",
        f"Machine: {machine['cpu']}, numpy {machine['numpy']}.",
        "",
        f"![{VOCABULARY}](sweep-{VOCABULARY}.png)",
        "",
        *markdown_table(sheet(costs)),
        "",
    ]
    stem.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")
    return {"environment": machine, "points": records}
