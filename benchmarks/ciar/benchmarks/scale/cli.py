"""`ciar bench-scale`: what pictures would cost with a cloud model of the paper's size.

Exit codes: 0 done; 1 other error; 2 bad request or usage; 4 timed out; 5 no server; 130 interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ciar.benchmarks.bench import plan
from ciar.benchmarks.commands import choose_prompts, describe, fail, measure_all, rows_by_profile, with_base
from ciar.benchmarks.figures import Row, floors_s, rows_of
from ciar.benchmarks.journal import Journal, require_writable
from ciar.benchmarks.machine import environment
from ciar.benchmarks.measurement import Measurement
from ciar.benchmarks.methods import Method, find_method
from ciar.benchmarks.profiles import FLOOR, Profile, find_profile
from ciar.benchmarks.report import WIDTH, Sheet, to_table
from ciar.benchmarks.scale.facts import Facts
from ciar.benchmarks.scale.report import LABEL, footer, header, labelled, markdown, pass_sheet
from ciar.benchmarks.scale.sizes import SIZES, available_gb, find_size, require_memory
from ciar.benchmarks.scale.stage import open_stage
from ciar.device_client.cli import EXIT_CODES
from ciar.shared.errors import CiarError, InvalidRequest

METHODS = ("cloud-window-1", "cloud", "lossless", "ciar", "device")
PROFILES = ("loopback", "lan", "5g")
DEVICES = ("cpu", "cuda")


def bench_scale(
    size: Annotated[str, typer.Option(help=f"Shape of the cloud model: {', '.join(SIZES)}.")] = "XL",
    device: Annotated[str, typer.Option(help="Where the cloud model runs: cpu or cuda.")] = "cpu",
    pictures: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 1,
    profile: Annotated[
        list[str] | None, typer.Option(help=f"Network, may be repeated. Default: {', '.join(PROFILES)}.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help=f"Row, may be repeated. Default: {', '.join(METHODS)}.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Pair that decides; default: the embedded one.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for scale.jsonl and scale.md.")] = Path("out/scale"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in the folder.")] = False,
) -> None:
    """Measure latency with a cloud model of LlamaGen's shape: random weights for time, a trained pair for outcomes.

    Server, contract, client and networks are real. Prints how long it may take, then tables, and one JSON line last.
    Exit codes: 1 other error, 2 bad request, 4 timed out, 5 no server, 130 interrupted (go on with --resume).
    """
    console = Console(width=WIDTH, highlight=False)
    journal: Journal | None = None
    try:
        size = find_size(size)
        _require_device(device, size)
        profiles = {found.name: found for found in map(find_profile, profile or PROFILES)}
        methods = {found.name: found for found in map(find_method, with_base(method or METHODS))}
        require_writable(out)
        prompts, calibration = choose_prompts(None, pictures, bundle)
        tasks = plan(rows_by_profile(profiles, methods), prompts, [0])
        with open_stage(size, device, bundle, (*profiles.values(), FLOOR)) as (stage, facts):
            manifest = stage.info().manifest
            configuration = {
                "label": LABEL,
                "size": size,
                "device": facts.device,
                "bundle": describe(manifest),
                "prompts": list(prompts),
                "profiles": [p.model_dump(mode="json") for p in profiles.values()],
                "methods": list(methods),
                "environment": environment(),
            }
            with Journal(out, configuration, resume=resume, name="scale.jsonl") as journal:
                num_left = len(tasks) - len(journal.measurements)
                typer.echo(_outlook(num_left, num_left * manifest.num_tokens * facts.pass_s[1]), err=True)
                measurements = measure_all(stage, journal, tasks, methods, calibration, manifest.defaults.verify_share)
            placement, rpc_s = stage.placement.describe(), stage.rpc_s
        rows = _ordered(rows_of(measurements), profiles, methods)
        summary = _summary(configuration, facts, measurements, rows, rpc_s)
        tables = [*labelled(rows, profiles), pass_sheet(facts, rows)]
        _write(out, markdown(summary, facts, tables, profiles, placement))
        _print(console, [*header(summary, facts, placement)], tables, [*footer(summary)], out)
    except CiarError as error:
        fail(str(error), EXIT_CODES.get(type(error), 1), journal)
    except KeyboardInterrupt:
        fail("interrupted", 130, journal)
    print(json.dumps(summary, allow_nan=False))


def _require_device(device: str, size: str) -> None:
    """Raises InvalidRequest, before anything runs, for what this machine does not have."""
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and not number.isdecimal()):
        raise InvalidRequest(f"device: cpu, cuda or cuda:N (got {device!r})")
    if kind == "cuda":
        import torch  # only to ask: the model is the server's

        if not torch.cuda.is_available():
            raise InvalidRequest(f"device: {device} is not available here; use cpu, or a build of torch with CUDA")
    else:
        require_memory(size, available_gb())


def _outlook(num_left: int, seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{num_left} pictures: at most about {minutes} min, if nobody else uses the machine"


def _ordered(rows: Sequence[Row], profiles: Mapping[str, Profile], methods: Mapping[str, Method]) -> list[Row]:
    """As they were asked for."""
    place = {key: index for index, key in enumerate(product((*profiles, FLOOR.name), methods))}
    return sorted(rows, key=lambda row: place[row.profile, row.method])


def _summary(
    configuration: Mapping[str, Any],
    facts: Facts,
    measurements: Sequence[Measurement],
    rows: Sequence[Row],
    rpc_s: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "label": LABEL,
        "environment": configuration["environment"],
        "configuration": {name: value for name, value in configuration.items() if name != "environment"},
        "facts": facts.model_dump(mode="json") | {"floor_s": facts.floor_s},
        "rpc_s": {name: round(seconds, 6) for name, seconds in rpc_s.items()},
        "floor_s": floors_s(measurements),
        "largest_residual_share": max((row.residual_share for row in rows), key=abs),
        "rows": [row.to_dict() for row in rows],
    }


def _write(out: Path, text: str) -> None:
    try:
        (out / "scale.md").write_text(text, encoding="utf-8")
    except OSError as exc:
        raise InvalidRequest(f"out: cannot write into {out} ({exc.strerror})") from exc


def _print(console: Console, head: Sequence[str], tables: Sequence[Sheet], foot: Sequence[str], out: Path) -> None:
    for line in head:
        console.print(line)
    for sheet in tables:
        console.print()
        console.print(sheet.title)  # apart from the table: it may be the wider of the two
        console.print(to_table(sheet._replace(title="")))
    console.print()
    for line in foot:
        console.print(line)
    console.print(f"kept in {out}: scale.jsonl, scale.md, trace.json")
