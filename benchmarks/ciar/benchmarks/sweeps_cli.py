"""`ciar bench-sweep`: one knob turned over its range, measured as `ciar bench` does: interleaved, resumable, relayed.

Exit codes as of `ciar bench`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ciar.benchmarks import sweeps_vocabulary
from ciar.benchmarks.bench import plan
from ciar.benchmarks.commands import (
    choose_prompts,
    describe,
    fail,
    measure_all,
    parse_seeds,
    progress_bar,
    require_lossless,
)
from ciar.benchmarks.figures import rows_of
from ciar.benchmarks.journal import Journal, require_writable
from ciar.benchmarks.machine import environment
from ciar.benchmarks.measurement import Measurement
from ciar.benchmarks.report import STARTED_HERE, WIDTH, header, to_table
from ciar.benchmarks.stage import open_stage
from ciar.benchmarks.sweeps import SWEEPS, VOCABULARY, Sweep, make_sweep, require_sweep
from ciar.benchmarks.sweeps_plots import write_sweep_plot
from ciar.benchmarks.sweeps_report import markdown, records, remarks, sheet
from ciar.device_client.cli import EXIT_CODES
from ciar.shared.errors import CiarError, InvalidRequest

PROMPTS = 4


def bench_sweep(
    names: Annotated[list[str] | None, typer.Argument(help=f"{', '.join(SWEEPS)}. Default: all.")] = None,
    values: Annotated[str | None, typer.Option(help="Values of the knob, with commas between; for one sweep.")] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help="Network in place of the sweep's own, may be repeated, or JSON.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="HOST:PORT; without it, a server is started and pinned.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the pair; default: the embedded one.")] = None,
    prompts: Annotated[int, typer.Option(min=1, help="How many.")] = PROMPTS,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt of your own, may be repeated.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of each prompt, with commas between.")] = "0",
    share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of held-out tokens that ciar asks; gates match it.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for sweep-NAME.jsonl, .md and .png.")] = Path("out"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweeps that are in the folder.")] = False,
) -> None:
    """Turn one knob over its range and measure every point, interleaved, over the same prompts and seeds.

    threshold: share verified; prefix: ρ; window: positions in a pass; ahead: tokens drafted ahead;
    rtt: round trip; gates: one share, every gate; vocabulary: cost of a score of doubt. Prints tables, and one JSON
    line last.
    """
    console = Console(width=WIDTH, highlight=False)
    journal: Journal | None = None
    summaries: dict[str, Any] = {}
    measured: list[Measurement] = []
    try:
        chosen = list(dict.fromkeys(names or SWEEPS))
        numbers = _numbers(values, chosen)
        for name in chosen:
            require_sweep(name)
        sweeps = {name: make_sweep(name, numbers, profile) for name in chosen if name != VOCABULARY}
        sizes = sweeps_vocabulary.require_sizes(numbers or sweeps_vocabulary.SIZES) if VOCABULARY in chosen else []
        chosen_seeds = parse_seeds(seeds)
        own, calibration = choose_prompts(prompt, prompts, bundle) if sweeps else ((), ())
        require_writable(out)
        for name in chosen:
            if name == VOCABULARY:
                summaries[name] = _vocabulary(console, sizes, out)
                continue
            sweep = sweeps[name]
            with open_stage(server, bundle, tuple(sweep.profiles.values())) as stage:
                manifest = stage.info().manifest
                configuration = {
                    "sweep": name,
                    "bundle": describe(manifest),
                    "server": server or STARTED_HERE,
                    "profiles": [p.model_dump(mode="json") for p in sweep.profiles.values()],
                    "methods": list(sweep.methods),
                    "prompts": list(own),
                    "seeds": chosen_seeds,
                    "calibration": list(calibration),
                    "verify_share": manifest.defaults.verify_share if share is None else share,
                    "environment": environment(),
                }
                with Journal(out, configuration, resume=resume, name=f"sweep-{name}.jsonl") as journal:
                    tasks = plan(sweep.plan_rows, own, chosen_seeds)
                    verify_share = configuration["verify_share"]
                    found = measure_all(stage, journal, tasks, sweep.methods, calibration, verify_share)
                placement, rpc_s = stage.placement.describe(), stage.rpc_s
            summaries[name] = _finish(console, sweep, found, configuration, placement, rpc_s, out)
            measured += found
    except CiarError as error:
        fail(str(error), EXIT_CODES.get(type(error), 1), journal)
    except KeyboardInterrupt:
        fail("interrupted", 130, journal)
    print(json.dumps(summaries, allow_nan=False))
    require_lossless(measured)


def _finish(
    console: Console,
    sweep: Sweep,
    found: Sequence[Measurement],
    configuration: dict[str, Any],
    placement: str,
    rpc_s: dict[str, float],
    out: Path,
) -> dict[str, Any]:
    """Write and print what was measured; returns the summary."""
    points = sweep.points(rows_of(found))
    summary = {
        "environment": configuration["environment"],
        "configuration": {name: value for name, value in configuration.items() if name != "environment"},
        "rpc_s": {name: round(seconds, 6) for name, seconds in rpc_s.items()},
    }
    stem = out / f"sweep-{sweep.name}"
    try:
        write_sweep_plot(sweep, points, stem.with_suffix(".png"))
        stem.with_suffix(".md").write_text(markdown(sweep, points, summary, placement), encoding="utf-8")
    except OSError as exc:
        raise InvalidRequest(f"out: cannot write into {out} ({exc.strerror})") from exc
    for line in header(summary, placement):
        console.print(line)
    console.print()
    console.print(to_table(sheet(sweep, points)))
    for line in remarks(sweep, points):
        console.print(line)
    console.print(f"kept in {out}: {stem.name}.jsonl, .md, .png\n")
    return summary | {"points": records(points), "remarks": remarks(sweep, points)}


def _vocabulary(console: Console, sizes: Sequence[int], out: Path) -> dict[str, Any]:
    with progress_bar(len(sizes)) as show:
        costs = sweeps_vocabulary.measure_costs(sizes, lambda size: show(f"V = {size}", sizes.index(size)))
    try:
        summary = sweeps_vocabulary.write(costs, out)
    except OSError as exc:
        raise InvalidRequest(f"out: cannot write into {out} ({exc.strerror})") from exc
    console.print(to_table(sweeps_vocabulary.sheet(costs)))
    console.print(sweeps_vocabulary.ABOUT)
    console.print(f"kept in {out}: sweep-{VOCABULARY}.jsonl, .md, .png\n")
    return summary


def _numbers(text: str | None, names: Sequence[str]) -> list[float] | None:
    if text is None:
        return None
    if len(names) != 1:
        raise InvalidRequest("values: name the one sweep that they are for")
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidRequest(f"values: numbers with commas between, such as 1,2,4 (got {text!r})") from None
