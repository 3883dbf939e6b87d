"""The figures of `ciar bench-scale` for people: what they stand for, tables, and the floor of a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ciar.benchmarks.figures import Row
from ciar.benchmarks.methods import find_method
from ciar.benchmarks.profiles import FLOOR, Profile
from ciar.benchmarks.report import NOTES, Sheet, all_sheets
from ciar.benchmarks.scale.facts import Facts
from ciar.benchmarks.scale.sizes import SIZES

LABEL = "passes of random weights, outcomes of the trained pair"
"""Stands with every figure."""

MEANING = (
    f"{LABEL.upper()}: every pass runs a model of",
    "LlamaGen's shape for its time, and the pair's own beside it for what it says. A trained model of that size would",
    "accept other shares: these are what the pair's would cost there.",
)


def labelled(rows: Sequence[Row], profiles: Mapping[str, Profile]) -> Iterator[Sheet]:
    """The benchmark's tables with the label in each title."""
    for sheet in all_sheets(rows, profiles):
        yield sheet._replace(title=f"{LABEL}: {sheet.title}")


def pass_sheet(facts: Facts, rows: Sequence[Row]) -> Sheet:
    """Passes of the cloud beside their floor, the time to read every weight once."""
    floor_s = facts.floor_s
    lines = [
        (f"{count} new token{'s' * (count != 1)}, nothing else running", "–", seconds)
        for count, seconds in facts.pass_s.items()
    ]
    lines += [
        (f"{row.method} on {row.profile}", f"{row.num_passes:.1f}", row.cloud_compute_s / row.num_passes)
        for row in rows
        if row.num_passes and row.profile != FLOOR.name
    ]
    title = (
        f"{LABEL}: a guided pass of the cloud; floor: {facts.pass_bytes / 1e9:.2f} GB of weights at "
        f"{facts.bandwidth_bytes_s / 1e9:.1f} GB/s = {floor_s * 1e3:.1f} ms; c = {facts.row_cost:.3f}"
    )
    return Sheet(
        title,
        ("pass", "a picture", "ms", "×floor"),
        [(name, count, f"{seconds * 1e3:.1f}", f"{seconds / floor_s:.2f}") for name, count, seconds in lines],
    )


def header(summary: Mapping[str, Any], facts: Facts, placement: str) -> Iterator[str]:
    """What the figures stand for, and who ran what where, in lines."""
    yield from MEANING
    machine, configuration = summary["environment"], summary["configuration"]
    pair = configuration["bundle"]
    yield f"machine   {machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    yield "versions  " + ", ".join(
        f"{name} {machine[name]}" for name in ("ciar", "torch", "onnxruntime", "grpcio", "numpy")
    )
    yield f"cloud     {SIZES[configuration['size']]}; {facts.num_parameters / 1e6:.0f} M random weights in float32"
    yield f"          on {facts.device}; V = 16 384, class-conditional, guided: two sequences a pass"
    yield f"pair      {pair['name']} {pair['version']}, digest {pair['digest']}: its drafter, its pictures"
    yield f"processes {placement}; one thread each"
    calls = ", ".join(f"{name} {seconds * 1000:.1f}" for name, seconds in summary["rpc_s"].items())
    yield f"small rpc {calls} ms as measured here"


def footer(summary: Mapping[str, Any]) -> Iterator[str]:
    """How to read the tables."""
    yield " ".join(NOTES)
    residual = summary["largest_residual_share"]
    yield f"network + cloud + drafting + other make up all but {abs(residual):.1%} of the time, or less, in every row."
    yield f"All of it: {LABEL}."


def markdown(
    summary: Mapping[str, Any],
    facts: Facts,
    tables: Sequence[Sheet],
    profiles: Mapping[str, Profile],
    placement: str,
) -> str:
    """The report as a file of its own."""
    parts = [f"# Latency at the paper's scale: {LABEL}", "", "```", *header(summary, facts, placement), "```", ""]
    parts += ["| method | what it does |", "|---|---|"]
    parts += [f"| `{name}` | {find_method(name).about} |" for name in summary["configuration"]["methods"]]
    parts += ["", "| profile | network | source |", "|---|---|---|"]
    parts += [f"| `{name}` | {profile.describe()} | {profile.source} |" for name, profile in profiles.items()]
    for sheet in tables:
        parts += ["", f"## {sheet.title}", "", f"| {' | '.join(sheet.columns)} |"]
        parts.append("|---|" + "---:|" * (len(sheet.columns) - 1))
        parts += [f"| {' | '.join(row)} |" for row in sheet.rows]
    return "\n".join([*parts, "", " ".join(footer(summary)), ""])
