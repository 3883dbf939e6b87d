"""The figures for people: tables for a terminal of 100 columns, and the same in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from ciar.benchmarks.figures import Row
from ciar.benchmarks.methods import find_method
from ciar.benchmarks.profiles import FLOOR, Profile

WIDTH = 100
STARTED_HERE = "started here"
"""The configuration's server if it is not another machine's."""

NOTES = (
    "Times in ms. p50 and p95 over pictures; speed-up: base over method, picture by picture (median, middle half);",
    "preview: until the first tokens are final (median). Means: network, cloud: waiting for either; drafting;",
    "other: messages, gate and loop, pixels. ×floor: p50 over that with every draft accepted and no network;",
    "×overlap: time over max(the device's own work, the cloud's passes) (median). Shares of T: requests, tokens asked",
    "about (those of dropped drafts too), verified by the cloud, decided by the device alone (local).",
    "cloud s: model passes, ×base: median.",
)

GLOSSARY = (
    ("p50, p95", "Milliseconds from the call to the finished picture, over all pictures."),
    ("speed-up, 25–75 %", "The cloud alone over this method, picture by picture: median and middle half."),
    ("preview", "Milliseconds until the first tokens are final, so that something can be shown (median)."),
    (
        "network, cloud",
        "Milliseconds that the device waited, by what it waited for (mean). Each answer says how long the cloud "
        "computed or queued for it; at most that much of a wait is the cloud's, the rest is the network's and gRPC's.",
    ),
    (
        "draft, other",
        "Milliseconds of the device's own work: drafter and drawing; messages, gate, loop, pixels (mean).",
    ),
    ("×floor", "p50 over the same method's floor: every draft accepted, no network."),
    ("×overlap", "Time over perfect overlap, the longer one of the device's own work and the cloud's passes (median)."),
    ("requests", "Questions sent, as a share of the T tokens of a picture."),
    ("asked", "Tokens asked about, those of dropped drafts too, as a share of T."),
    ("verified", "Tokens of the finished picture that the cloud confirmed or corrected, as a share of T."),
    ("local", "Tokens of the finished picture that the device decided alone, as a share of T."),
    ("corrected, dropped", "Tokens that the cloud replaced; tokens drafted in vain, because a correction came before."),
    ("B up, B down, B/token", "Serialized messages, without HTTP/2 and TLS; per token both ways together."),
    ("cloud s, ×base", "Seconds of the cloud's model passes for a picture; median ratio to the cloud alone."),
    (
        "agree",
        "Share of positions with the token of the cloud alone. After a first difference a picture is another picture: "
        "this is no measure of quality.",
    ),
)
"""Columns, and what they mean."""

QUALITY = "How good the pictures are is measured by `ciar evaluate`, not here."


class Sheet(NamedTuple):
    """A table without a medium."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def sheets(rows: Sequence[Row], profiles: Mapping[str, Profile]) -> Iterator[Sheet]:
    """Two tables for each profile: where time goes, and what is asked and sent."""
    for name, profile in profiles.items():
        own = [row for row in rows if row.profile == name]
        if own:
            yield _times(f"{name}: time of a picture; {profile.describe()}", own)
            yield _traffic(f"{name}: what is verified, sent and computed", own)


def _times(title: str, rows: Sequence[Row]) -> Sheet:
    columns = ("method", "p50", "p95", "speed-up", "25–75 %", "×cloud", "preview", "network", "cloud", "draft", "other")
    return Sheet(
        title,
        (*columns, "×floor", "×overlap"),
        [
            (
                row.method,
                _ms(row.seconds.p50),
                _ms(row.seconds.p95),
                f"{row.speed_up.p50:.2f}×" if row.speed_up else "–",
                f"{row.speed_up.p25:.2f}–{row.speed_up.p75:.2f}" if row.speed_up else "–",
                f"{row.over_strongest.p50:.2f}" if row.over_strongest else "–",
                _ms(row.preview_s),
                _ms(row.network_s),
                _ms(row.cloud_s),
                _ms(row.drafting_s),
                _ms(row.other_s),
                f"{row.over_floor:.1f}" if row.over_floor else "–",
                f"{row.over_overlap:.2f}",
            )
            for row in rows
        ],
    )


def _traffic(title: str, rows: Sequence[Row]) -> Sheet:
    columns = ("method", "requests", "verified", "local", "rejected", "forks", "dropped", "B up", "B down")
    return Sheet(
        title,
        (*columns, "B/token", "cloud s", "×base", "agree"),
        [
            (
                row.method,
                f"{row.requests_share:.1%}",
                f"{row.verified_share:.1%}",
                f"{row.local_share:.1%}",
                f"{row.num_rejections:.1f}",
                f"{row.num_forks:.1f}",
                f"{row.num_discarded:.1f}",
                f"{row.bytes_up:.0f}",
                f"{row.bytes_down:.0f}",
                f"{row.bytes_per_token:.1f}",
                f"{row.cloud_compute_s:.3f}",
                f"{row.cloud_compute_ratio:.2f}" if row.cloud_compute_ratio is not None else "–",
                f"{row.agreement:.1%}" if row.agreement is not None else "–",
            )
            for row in rows
        ],
    )


def floor_sheet(rows: Sequence[Row]) -> Sheet | None:
    """What each method takes with every draft accepted and no network; None if no floor was measured."""
    own = [row for row in rows if row.profile == FLOOR.name]
    if not own:
        return None
    return Sheet(
        "floor: time of a picture with every draft accepted and no network",
        ("method", "p50", "p95", "draft", "messages", "gate, loop", "pixels", "requests"),
        [
            (
                row.method,
                _ms(row.seconds.p50),
                _ms(row.seconds.p95),
                _ms(row.drafting_s),
                _ms(row.messages_s),
                _ms(row.bookkeeping_s),
                _ms(row.pixels_s),
                f"{row.requests_share:.1%}",
            )
            for row in own
        ],
    )


def all_sheets(rows: Sequence[Row], profiles: Mapping[str, Profile]) -> Iterator[Sheet]:
    """Two tables for each profile, and the floors."""
    yield from sheets(rows, profiles)
    if floors := floor_sheet(rows):
        yield floors


def to_table(sheet: Sheet) -> Table:
    """For the terminal."""
    table = Table(
        title=sheet.title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    for index, column in enumerate(sheet.columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=index > 0, overflow="fold")
    for row in sheet.rows:
        table.add_row(*row)
    return table


def header(summary: Mapping[str, Any], placement: str) -> Iterator[str]:
    """Who ran what where, in lines."""
    machine, bundle = summary["environment"], summary["configuration"]["bundle"]
    yield f"machine   {machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    yield "versions  " + ", ".join(
        f"{name} {machine[name]}" for name in ("ciar", "torch", "onnxruntime", "grpcio", "numpy")
    )
    yield f"pair      {bundle['name']} {bundle['version']}, digest {bundle['digest']}, T = {bundle['num_tokens']}"
    server = summary["configuration"]["server"]
    threads = "one thread each" if server == STARTED_HERE else f"the server at {server} as it was started"
    yield f"processes {placement}; {threads}"
    if summary["rpc_s"]:
        calls = ", ".join(f"{name} {seconds * 1000:.1f}" for name, seconds in summary["rpc_s"].items())
        yield f"small rpc {calls} ms as measured here"
    configuration = summary["configuration"]
    yield (
        f"pictures  {len(configuration['prompts'])} prompts, seeds {', '.join(map(str, configuration['seeds']))}; "
        "every method in turn on each"
    )
    yield (
        f"gates     ciar has {configuration['verify_share']:.0%} of held-out tokens verified; "
        f"the others its share of {len(configuration['calibration'])} calibration pictures"
    )


def footer(summary: Mapping[str, Any]) -> Iterator[str]:
    """How to read the tables, and what they are measured against."""
    yield " ".join(NOTES)
    residual = summary["largest_residual_share"]
    if summary["floor_s"]:
        yield "The floor of the device alone has no questions at all, those of the others all but the waiting."
    yield f"network + cloud + drafting + other make up all but {abs(residual):.1%} of the time, or less, in every row."
    if abs(residual) > 0.05:
        yield "That is more than 5 %: take the split of the time with care."
    yield QUALITY


def markdown(summary: Mapping[str, Any], rows: Sequence[Row], profiles: Mapping[str, Profile], placement: str) -> str:
    """The report as a file of its own."""
    parts = [
        "# Latency benchmark",
        "",
        "```",
        *header(summary, placement),
        "```",
        "",
        "![Speed-up and time](bench.png)",
        "",
    ]
    parts += ["| method | what it does |", "|---|---|"]
    parts += [f"| `{name}` | {find_method(name).about} |" for name in summary["configuration"]["methods"]]
    parts += ["", "| profile | network | source |", "|---|---|---|"]
    parts += [f"| `{name}` | {profile.describe()} | {profile.source} |" for name, profile in profiles.items()]
    for sheet in all_sheets(rows, profiles):
        parts += ["", f"## {sheet.title}", "", f"| {' | '.join(sheet.columns)} |"]
        parts.append("|---|" + "---:|" * (len(sheet.columns) - 1))
        parts += [f"| {' | '.join(row)} |" for row in sheet.rows]
    return "\n".join([*parts, "", " ".join(footer(summary)), ""])


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"
