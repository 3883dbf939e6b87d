"""The figures of a replay for people: what they stand for, the benchmark's tables, and the floor of a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ciar.benchmarks.figures import Row
from ciar.benchmarks.methods import find_method
from ciar.benchmarks.profiles import FLOOR, Profile
from ciar.benchmarks.report import NOTES, Sheet, all_sheets
from ciar.benchmarks.scale.facts import Facts
from ciar.benchmarks.scale.sizes import SIZES
from ciar.benchmarks.scale.trace import Trace

LABEL = "replayed decisions, random weights"
"""Stands with every figure of a replay."""

MEANING = (
    f"{LABEL.upper()}: what is asked and corrected comes from a trace of another,",
    "trained pair; the pictures mean nothing. Seconds, bytes, requests and passes are real.",
)


def labelled(rows: Sequence[Row], profiles: Mapping[str, Profile]) -> Iterator[Sheet]:
    """The benchmark's tables with the label in each title."""
    for sheet in all_sheets(rows, profiles):
        yield sheet._replace(title=f"{LABEL}: {sheet.title}")


def trace_sheet(trace: Trace) -> Sheet:
    """What the trace has of each method: means over its pictures, in shares of all tokens."""
    num_tokens = trace.num_tokens
    rows = []
    for method in dict.fromkeys(record.method for record in trace.records):
        decisions = "".join(record.decisions for record in trace.records if record.method == method)
        shares = (f"{decisions.count(letter) / len(decisions):.1%}" for letter in "plcx")
        num_pictures = len(decisions) // num_tokens
        rows.append((method, str(num_pictures), *shares, f"{decisions.count('x') / num_pictures:.1f}"))
    columns = ("method", "pictures", "prefix", "local", "confirmed", "corrected", "corrections")
    return Sheet(f"what was replayed: who decided the tokens of {trace.pair}", columns, rows)


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
        f"{facts.bandwidth_bytes_s / 1e9:.1f} GB/s = {floor_s * 1e3:.1f} ms"
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
    model, trace = configuration["model"], configuration["trace"]
    yield f"machine   {machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    yield "versions  " + ", ".join(
        f"{name} {machine[name]}" for name in ("ciar", "torch", "onnxruntime", "grpcio", "numpy")
    )
    yield f"cloud     {SIZES[configuration['size']]}; {facts.num_parameters / 1e6:.0f} M random weights in float32"
    yield f"          on {facts.device}; V = {model['vocab_size']}, T = {model['num_tokens']}, class-conditional,"
    yield f"          guidance {model['guidance']:g}: two sequences a pass"
    yield (
        f"device    one layer of width {model['drafter_dim']} with an Inter-Head for V = {model['vocab_size']}, random "
        f"weights in int8: {model['drafter_bytes'] / 1e6:.0f} MB"
    )
    yield f"trace     {len(configuration['prompts'])} pictures of {trace['pair']}; trace {trace['digest']}"
    yield f"processes {placement}; one thread each; at most {configuration['depth']} questions in flight"
    calls = ", ".join(f"{name} {seconds * 1000:.1f}" for name, seconds in summary["rpc_s"].items())
    yield f"small rpc {calls} ms as measured here"


def footer(summary: Mapping[str, Any]) -> Iterator[str]:
    """How to read the tables."""
    yield " ".join(NOTES)
    residual = summary["largest_residual_share"]
    yield f"network + cloud + drafting + other make up all but {abs(residual):.1%} of the time, or less, in every row."
    yield f"All of it: {LABEL}. agree has no meaning here and is left out."


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
