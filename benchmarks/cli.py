"""`ciar bench`: end-to-end latency of every method, over real processes and a real network between them.

Exit codes: 0 done; 1 other error, or a lossless picture that differs; 2 bad request or usage; 4 timed out; 5 no server;
6 device and server do not fit together; 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.bench import plan, run
from benchmarks.figures import Row, floor_s, rows_of, unexplained
from benchmarks.journal import Journal, require_writable
from benchmarks.machine import environment
from benchmarks.measurement import Measurement, Task
from benchmarks.methods import BASE, METHODS, QUICK_METHODS, Method, Setting, find_method
from benchmarks.plots import write_plots
from benchmarks.profiles import PROFILES, Profile, find_profile
from benchmarks.prompts import prompts_of
from benchmarks.report import STARTED_HERE, WIDTH, footer, header, markdown, sheets, to_table
from benchmarks.stage import Stage, digest, open_stage
from cloud_server.settings import EMBEDDED_BUNDLE
from device_client.cli import EXIT_CODES
from shared.bundle import Manifest
from shared.captions import CaptionVocabulary
from shared.errors import CiarError, InvalidRequest

NUM_CALIBRATION_PROMPTS = 3
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
    share: Annotated[float | None, typer.Option(min=0, max=1, help="Share that gates ask about.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"{QUICK_PROMPTS} prompts, {len(QUICK_METHODS)} methods, 2 networks.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for bench.jsonl, bench.md and bench.png.")] = Path("out"),
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
        methods = _unique(find_method, _with_base(method or (QUICK_METHODS if quick else METHODS)))
        chosen_seeds = _parse_seeds(seeds)
        own, calibration = _choose_prompts(prompt, prompts or (QUICK_PROMPTS if quick else FULL_PROMPTS), bundle)
        require_writable(out)
        with open_stage(server, bundle, tuple(profiles.values())) as stage:
            manifest = stage.info().manifest
            configuration = {
                "bundle": _describe(manifest),
                "server": server or STARTED_HERE,
                "profiles": [p.model_dump(mode="json") for p in profiles.values()],
                "methods": list(methods),
                "prompts": list(own),
                "seeds": chosen_seeds,
                "ask_share": manifest.defaults.ask_share if share is None else share,
                "environment": environment(),
            }
            with Journal(out, configuration, resume=resume) as journal:
                tasks = plan(tuple(profiles), tuple(methods), own, chosen_seeds)
                measurements = _measure(stage, journal, tasks, methods, calibration, configuration)
            placement, rpc_s = stage.placement.describe(), stage.rpc_s
        rows = _ordered(rows_of(measurements), profiles, methods)
        summary = _summary(configuration, measurements, rows, rpc_s)
        _write(out, summary, rows, profiles, placement)
        _print(console, summary, rows, profiles, placement, out)
    except CiarError as error:
        _fail(str(error), EXIT_CODES.get(type(error), 1), journal)
    except KeyboardInterrupt:
        _fail("interrupted", 130, journal)
    print(json.dumps(summary, allow_nan=False))
    if wrong := unexplained(measurements):
        first = wrong[0]
        _fail(
            f"lossless: {len(wrong)} pictures differ from the cloud's own without a near tie, the first for "
            f"{first.prompt!r}, seed {first.seed}: this is a bug, please report it",
            1,
        )


def _measure(
    stage: Stage,
    journal: Journal,
    tasks: Sequence[Task],
    methods: Mapping[str, Method],
    calibration: Sequence[str],
    configuration: Mapping[str, Any],
) -> Sequence[Measurement]:
    """Warm up, calibrate, and measure every task that the journal lacks."""
    with _progress_bar(len(tasks)) as show:
        if len(journal.measurements) < len(tasks):
            show("warming up", len(journal.measurements))
            stage.warm_up(tasks[0].prompt)
            show("calibrating gates", len(journal.measurements))
            priors = stage.calibrate(methods, calibration)
            setting = Setting(stage.info().manifest, configuration["ask_share"], priors)
        return run(
            tasks,
            lambda task: stage.draw(methods[task.method], task, setting),
            journal,
            lambda task, num_done: show(f"{task.profile}: {task.method}", num_done),
        )


def _choose_prompts(
    given: Sequence[str] | None, count: int, bundle: Path | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Prompts to measure, and others for calibration."""
    if given:
        return tuple(given), tuple(given)[:NUM_CALIBRATION_PROMPTS]
    captions = (bundle or EMBEDDED_BUNDLE) / "captions.json"
    if not captions.is_file():
        raise InvalidRequest(f"prompts: there is no {captions} to take them from; give --bundle or --prompt")
    vocabulary = CaptionVocabulary.load(captions)
    own = prompts_of(vocabulary, count)
    return own, prompts_of(vocabulary, NUM_CALIBRATION_PROMPTS, start=count)


def _describe(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "digest": digest(manifest),
        "num_tokens": manifest.num_tokens,
        "vocab_size": manifest.vocab_size,
    }


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidRequest(f"seeds: whole numbers with commas between, such as 0,1,2 (got {text!r})") from None
    if not all(0 <= seed < 2**64 for seed in seeds):
        raise InvalidRequest(f"seeds: must be in [0, 2⁶⁴) (got {text!r})")
    return list(dict.fromkeys(seeds))


def _with_base(names: Sequence[str]) -> list[str]:
    """The base belongs to every run."""
    return [BASE, *(name for name in names if name != BASE)]


def _unique(find: Callable[[str], Named], names: Sequence[str]) -> dict[str, Named]:
    found = [find(name) for name in names]
    return {item.name: item for item in found}


def _ordered(rows: Sequence[Row], profiles: Mapping[str, Profile], methods: Mapping[str, Method]) -> list[Row]:
    """As they were asked for, whatever the rotation measured first."""
    place = {key: index for index, key in enumerate((profile, method) for profile in profiles for method in methods)}
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
        "floor_s": floor_s(measurements),
        "largest_residual_share": max((row.residual_share for row in rows), key=abs),
        "rows": [row.to_dict() for row in rows],
    }


def _write(
    out: Path, summary: Mapping[str, Any], rows: Sequence[Row], profiles: Mapping[str, Profile], placement: str
) -> None:
    try:
        (out / "bench.md").write_text(markdown(summary, rows, profiles, placement), encoding="utf-8")
        write_plots(rows, out / "bench.png")
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
    for sheet in sheets(rows, profiles):
        console.print()
        console.print(to_table(sheet))
    console.print()
    for line in footer(summary):
        console.print(line)
    console.print(f"kept in {out}: bench.jsonl, bench.md, bench.png")


@contextmanager
def _progress_bar(total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar on standard error, if that is a terminal."""
    columns: Any = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda what, num_done: bar.update(task, description=what, completed=num_done)


def _fail(sentence: str, code: int, journal: Journal | None = None) -> NoReturn:
    kept = ""
    if journal is not None and journal.num_kept:
        kept = f"; {journal.num_kept} finished and kept in {journal.path}: --resume goes on"
    typer.echo(f"error: {' '.join(sentence.split())}{kept}", err=True)
    raise typer.Exit(code)
