"""`ciar bench`: end-to-end latency of every method, over real processes and a real network between them.

Exit codes: 0 done; 1 other error, or a lossless picture that differs; 2 bad request or usage; 4 timed out; 5 no server;
6 device and server do not fit together; 130 interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from ciar.benchmarks.bench import plan
from ciar.benchmarks.commands import (
    choose_prompts,
    describe,
    fail,
    measure_all,
    parse_seeds,
    require_lossless,
    rows_by_profile,
    with_base,
)
from ciar.benchmarks.figures import Row, floors_s, rows_of
from ciar.benchmarks.html_report import html
from ciar.benchmarks.journal import Journal, require_writable
from ciar.benchmarks.machine import environment
from ciar.benchmarks.measurement import Measurement
from ciar.benchmarks.methods import METHODS, QUICK_METHODS, Method, find_method
from ciar.benchmarks.plots import write_plots
from ciar.benchmarks.profiles import FLOOR, PROFILES, Profile, find_profile
from ciar.benchmarks.report import STARTED_HERE, WIDTH, all_sheets, footer, header, markdown, to_table
from ciar.benchmarks.stage import open_stage
from ciar.device_client.cli import EXIT_CODES
from ciar.shared.errors import CiarError, InvalidRequest

Named = TypeVar("Named", Profile, Method)
QUICK_PROFILES = ("loopback", "5g")
QUICK_PROMPTS, FULL_PROMPTS = 4, 8


def bench(
    server: Annotated[str | None, typer.Option(help="HOST:PORT; without it, a server is started and pinned.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the pair; default: the embedded one.")] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help=f"Network, may be repeated: {', '.join(PROFILES)}, or JSON. Default: all.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help=f"Row, may be repeated: {', '.join(METHODS)}. Default: all.")
    ] = None,
    prompts: Annotated[int | None, typer.Option(min=1, help=f"How many; default {FULL_PROMPTS}.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt of your own, may be repeated.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of each prompt, with commas between.")] = "0",
    share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of held-out tokens that ciar asks; gates match it.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"{QUICK_PROMPTS} prompts, {len(QUICK_METHODS)} methods, 2 networks.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for bench.html, bench.jsonl, bench.md and bench.png.")] = Path(
        "out"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in the folder.")] = False,
) -> None:
    """Measure end-to-end latency: every method, the same prompts and seeds, interleaved, through each network.

    Prints tables, and one JSON line last. Exit codes: 1 other error, 2 bad request, 4 timed out, 5 no server, 6 device
    and server do not fit, 130 interrupted (what is finished is kept: go on with --resume).
    """
    console = Console(width=WIDTH, highlight=False)
    journal: Journal | None = None
    try:
        profiles = _unique(find_profile, profile or (QUICK_PROFILES if quick else tuple(PROFILES)))
        methods = _unique(find_method, with_base(method or (QUICK_METHODS if quick else METHODS)))
        chosen_seeds = parse_seeds(seeds)
        own, calibration = choose_prompts(prompt, prompts or (QUICK_PROMPTS if quick else FULL_PROMPTS), bundle)
        require_writable(out)
        with open_stage(server, bundle, (*profiles.values(), FLOOR)) as stage:
            manifest = stage.info().manifest
            configuration = {
                "bundle": describe(manifest),
                "server": server or STARTED_HERE,
                "profiles": [p.model_dump(mode="json") for p in profiles.values()],
                "methods": list(methods),
                "prompts": list(own),
                "seeds": chosen_seeds,
                "calibration": list(calibration),
                "verify_share": manifest.defaults.verify_share if share is None else share,
                "environment": environment(),
            }
            with Journal(out, configuration, resume=resume) as journal:
                tasks = plan(rows_by_profile(profiles, methods), own, chosen_seeds)
                share = configuration["verify_share"]
                measurements = measure_all(stage, journal, tasks, methods, calibration, share)
            placement, rpc_s = stage.placement.describe(), stage.rpc_s
        rows = _ordered(rows_of(measurements), profiles, methods)
        summary = _summary(configuration, measurements, rows, rpc_s)
        _write(out, summary, rows, profiles, placement)
        _print(console, summary, rows, profiles, placement, out)
    except CiarError as error:
        fail(str(error), EXIT_CODES.get(type(error), 1), journal)
    except KeyboardInterrupt:
        fail("interrupted", 130, journal)
    print(json.dumps(summary, allow_nan=False))
    require_lossless(measurements)


def _unique(find: Callable[[str], Named], names: Sequence[str]) -> dict[str, Named]:
    found = [find(name) for name in names]
    return {item.name: item for item in found}


def _ordered(rows: Sequence[Row], profiles: Mapping[str, Profile], methods: Mapping[str, Method]) -> list[Row]:
    """As they were asked for, whatever the rotation measured first."""
    place = {key: index for index, key in enumerate(product((*profiles, FLOOR.name), methods))}
    return sorted(rows, key=lambda row: place[row.profile, row.method])


def _summary(
    configuration: Mapping[str, Any],
    measurements: Sequence[Measurement],
    rows: Sequence[Row],
    rpc_s: Mapping[str, float],
) -> dict[str, Any]:
    settings = {name: value for name, value in configuration.items() if name != "environment"}
    return {
        "environment": configuration["environment"],
        "configuration": settings,
        "rpc_s": {name: round(seconds, 6) for name, seconds in rpc_s.items()},
        "floor_s": floors_s(measurements),
        "largest_residual_share": max((row.residual_share for row in rows), key=abs),
        "rows": [row.to_dict() for row in rows],
    }


def _write(
    out: Path, summary: Mapping[str, Any], rows: Sequence[Row], profiles: Mapping[str, Profile], placement: str
) -> None:
    try:
        (out / "bench.md").write_text(markdown(summary, rows, profiles, placement), encoding="utf-8")
        write_plots(rows, out / "bench.png")
        plot = (out / "bench.png").read_bytes()
        (out / "bench.html").write_text(html(summary, rows, profiles, placement, plot), encoding="utf-8")
    except OSError as exc:
        raise InvalidRequest(f"out: cannot write into {out} ({exc.strerror})") from exc


def _print(
    console: Console,
    summary: Mapping[str, Any],
    rows: Sequence[Row],
    profiles: Mapping[str, Profile],
    placement: str,
    out: Path,
) -> None:
    for line in header(summary, placement):
        console.print(line)
    for sheet in all_sheets(rows, profiles):
        console.print()
        console.print(to_table(sheet))
    console.print()
    for line in footer(summary):
        console.print(line)
    console.print(f"kept in {out}: bench.html, bench.jsonl, bench.md, bench.png")
