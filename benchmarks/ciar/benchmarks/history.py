"""How the headline rows of `ciar bench` went from release to release: a file with a line each, and a plot of it.

    python -m ciar.benchmarks.history add --run out/bench.jsonl --release 0.2.0 [--note "…"]
    python -m ciar.benchmarks.history plot

A line is what a finished run measured, with the machine and the pair it was measured on; lines of different machines do
not compare, so each machine has a line of its own in the plot. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ciar.benchmarks.figures import Row, rows_of
from ciar.benchmarks.measurement import Measurement
from ciar.benchmarks.profiles import FLOOR
from ciar.shared.errors import CiarError, InvalidRequest

HISTORY = Path("benchmarks/history.jsonl")
PLOT = Path("docs/history.png")
HEADLINE = ("cloud-window-1", "cloud", "lossless", "ciar", "device")
"""Methods whose rows are kept."""

LINES = ("-", "--", ":", "-.")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def read_run(run: Path) -> tuple[dict[str, Any], list[Measurement]]:
    """Configuration and measurements of a bench run's JSONL file. Raises InvalidRequest if it is none."""
    try:
        first, *others = [json.loads(line) for line in run.read_text(encoding="utf-8").splitlines()]
        return first["configuration"], [Measurement.from_dict(line) for line in others]
    except OSError as exc:
        raise InvalidRequest(f"run: cannot read {run} ({exc.strerror})") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise InvalidRequest(f"run: {run} is not what `ciar bench` writes ({exc})") from exc


def line_of(
    configuration: Mapping[str, Any], measurements: Sequence[Measurement], release: str, day: date, note: str = ""
) -> dict[str, Any]:
    """The line of a release. Raises InvalidRequest if a headline row was not measured in every network, in full."""
    rows = [row for row in rows_of(measurements) if row.profile != FLOOR.name and row.method in HEADLINE]
    profiles = [profile["name"] for profile in configuration["profiles"]]
    num_pictures = len(configuration["prompts"]) * len(configuration["seeds"])
    whole = {(row.profile, row.method) for row in rows if row.num_pictures == num_pictures}
    missing = [
        f"{method} on {profile}" for profile in profiles for method in HEADLINE if (profile, method) not in whole
    ]
    if missing:
        raise InvalidRequest(f"run: not measured, or not in full: {', '.join(missing)}")
    return {
        "release": release,
        "date": day.isoformat(),
        "note": note,
        "environment": configuration["environment"],
        "bundle": configuration["bundle"],
        "num_pictures": num_pictures,
        "rows": [_headline(row) for row in rows],
    }


def _headline(row: Row) -> dict[str, Any]:
    figures = row.to_dict()
    kept = ("profile", "method", "seconds", "speed_up", "requests_share", "local_share", "bytes_per_token", "agreement")
    return {name: figures[name] for name in kept}


def read_history(path: Path) -> list[dict[str, Any]]:
    """All lines, oldest first. Raises InvalidRequest for one that is not JSON."""
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            lines.append(json.loads(text))
        except ValueError as exc:
            raise InvalidRequest(f"history: line {number} of {path} is not JSON") from exc
    return lines


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line. Raises InvalidRequest if the release already has one of this machine."""
    for old in read_history(path):
        if old["release"] == line["release"] and old["environment"]["cpu"] == line["environment"]["cpu"]:
            raise InvalidRequest(f"release: {line['release']} has a line of this machine already; remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n")


def write_plot(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Speed-up of `ciar` and `lossless` over the releases, a panel for each network, a style for each machine.

    Raises InvalidRequest if there is nothing to be plotted.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not lines:
        raise InvalidRequest("history: it has no line yet; add one with `python -m ciar.benchmarks.history add`")
    releases = list(dict.fromkeys(line["release"] for line in lines))
    machines = list(dict.fromkeys(line["environment"]["cpu"] for line in lines))
    profiles = list(dict.fromkeys(row["profile"] for line in lines for row in line["rows"]))
    figure = Figure(figsize=(1 + 4 * len(profiles), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, profile in enumerate(profiles, 1):
        axes = figure.add_subplot(1, len(profiles), place)
        for style, machine in enumerate(machines):
            for colour, method in enumerate(name for name in HEADLINE if name not in ("cloud", "device")):
                points = list(_points(lines, machine, profile, method))
                axes.plot(
                    [releases.index(release) for release, _ in points],
                    [speed_up for _, speed_up in points],
                    LINES[style % len(LINES)],
                    color=COLOURS[colour],
                    marker="o",
                    label=f"{method}, {machine}",
                )
        axes.axhline(1, color="#666666", linewidth=1)
        axes.set_xticks(range(len(releases)), releases)
        axes.set_title(profile)
        axes.grid(axis="y", linewidth=0.3)
        if place == 1:
            axes.set_ylabel("speed-up over the cloud alone (median)")
            axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _points(lines: Sequence[Mapping[str, Any]], machine: str, profile: str, method: str) -> Iterator[tuple[str, float]]:
    for line in lines:
        for row in line["rows"]:
            if line["environment"]["cpu"] == machine and (row["profile"], row["method"]) == (profile, method):
                yield line["release"], row["speed_up"]["p50"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 something that cannot be used, with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m ciar.benchmarks.history", description=__doc__.split("\n")[0])
    parser.add_argument("--history", type=Path, default=HISTORY, help=f"default: {HISTORY}")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="append the line of a release")
    add.add_argument("--run", type=Path, default=Path("out/bench.jsonl"), help="what `ciar bench` wrote")
    add.add_argument("--release", required=True, help="version, or a label such as 0.2.0+quick")
    add.add_argument("--note", default="", help="what a reader must know of the run")
    plot = commands.add_parser("plot", help="draw what the file has")
    plot.add_argument("--out", type=Path, default=PLOT, help=f"default: {PLOT}")
    options = parser.parse_args(arguments)
    try:
        if options.command == "add":
            today = datetime.now(UTC).date()
            append(options.history, line_of(*read_run(options.run), options.release, today, options.note))
        else:
            write_plot(read_history(options.history), options.out)
    except CiarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
