"""`ciar bench-scale`: what the paper's cloud model would cost, with decisions replayed from the embedded pair.

Exit codes: 0 done; 1 other error; 2 bad request or usage; 4 timed out; 5 no server; 130 interrupted.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ciar.benchmarks.bench import plan, run
from ciar.benchmarks.commands import choose_prompts, fail, progress_bar, with_base
from ciar.benchmarks.figures import Row, floors_s, rows_of
from ciar.benchmarks.journal import Journal, require_writable
from ciar.benchmarks.machine import environment
from ciar.benchmarks.measurement import Measurement
from ciar.benchmarks.methods import BASE, Method, Setting, find_method
from ciar.benchmarks.profiles import FLOOR, Profile, find_profile
from ciar.benchmarks.report import WIDTH, Sheet, to_table
from ciar.benchmarks.scale.estimate import longest_s
from ciar.benchmarks.scale.facts import Facts
from ciar.benchmarks.scale.record import record
from ciar.benchmarks.scale.replay import ASKING, replayed, require_chain
from ciar.benchmarks.scale.report import LABEL, footer, header, labelled, markdown, pass_sheet, trace_sheet
from ciar.benchmarks.scale.sizes import GRID, SIZES, available_gb, find_size, require_memory
from ciar.benchmarks.scale.stage import open_replay
from ciar.benchmarks.scale.trace import Trace
from ciar.benchmarks.stage import Stage
from ciar.device_client.cli import EXIT_CODES
from ciar.device_client.client import DEFAULT_DEPTH
from ciar.shared.errors import CiarError, InvalidRequest

METHODS = ("cloud", "lossless", "ciar", "code:0.3", "device")
PROFILES = ("loopback", "lan", "5g")
DEVICES = ("cpu", "cuda")


def bench_scale(
    size: Annotated[str, typer.Option(help=f"Shape of the cloud model: {', '.join(SIZES)}.")] = "XL",
    device: Annotated[str, typer.Option(help="Where the cloud model runs: cpu or cuda.")] = "cpu",
    pictures: Annotated[
        int | None, typer.Option(min=1, max=100, help="How many; default 1, or all of --trace.")
    ] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help=f"Network, may be repeated. Default: {', '.join(PROFILES)}.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help=f"Row, may be repeated. Default: {', '.join(METHODS)}.")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Most questions in flight.")] = DEFAULT_DEPTH,
    trace: Annotated[Path | None, typer.Option(help="Decisions to replay; else recorded first.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Pair to record from; default: the embedded one.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for scale.jsonl, scale.md and trace.json.")] = Path("out/scale"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in the folder.")] = False,
) -> None:
    """Measure latency with a cloud model of LlamaGen's shape: replayed decisions, random weights.

    Server, contract, client and networks are real, and so are seconds, bytes and passes; what is asked and what is
    corrected is replayed from pictures of a trained pair. Prints how long it may take, then tables, and one JSON line
    last. Exit codes: 1 other error, 2 bad request, 4 timed out, 5 no server, 130 interrupted (go on with --resume).
    """
    console = Console(width=WIDTH, highlight=False)
    journal: Journal | None = None
    try:
        size = find_size(size)
        _require_device(device, size)
        profiles = {found.name: found for found in map(find_profile, profile or PROFILES)}
        methods = {found.name: found for found in map(find_method, with_base(method or METHODS))}
        for found in methods.values():
            require_chain(found)
        require_writable(out)
        chosen = _trace(trace, methods, pictures, bundle, out, resume=resume)
        replays = {name: replayed(found, chosen, {"depth": depth}) for name, found in methods.items()}
        prompts = chosen.prompts[:pictures]
        tasks = plan(_rows(profiles, methods), prompts, [chosen.seed])
        with open_replay(size, device, out / "trace.json", (*profiles.values(), FLOOR)) as (stage, facts):
            configuration = {
                "label": LABEL,
                "size": size,
                "device": facts.device,
                "model": _model(stage),
                "trace": {"digest": chosen.digest, "pair": chosen.pair},
                "prompts": list(prompts),
                "profiles": [p.model_dump(mode="json") for p in profiles.values()],
                "methods": list(methods),
                "depth": depth,
                "environment": environment(),
            }
            with Journal(out, configuration, resume=resume, name="scale.jsonl") as journal:
                finished = {measurement.task for measurement in journal.measurements}
                left = [task for task in tasks if task not in finished]
                typer.echo(_outlook(len(left), longest_s(left, replays, chosen, facts)), err=True)
                measurements = _measure(stage, journal, tasks, replays)
            placement, rpc_s = stage.placement.describe(), stage.rpc_s
        rows = _ordered(rows_of(measurements), profiles, methods)
        summary = _summary(configuration, facts, measurements, rows, rpc_s)
        tables = [*labelled(rows, profiles), pass_sheet(facts, rows), trace_sheet(chosen)]
        _write(out, markdown(summary, facts, tables, profiles, placement))
        _print(console, [*header(summary, facts, placement)], tables, [*footer(summary)], out)
    except CiarError as error:
        fail(str(error), EXIT_CODES.get(type(error), 1), journal)
    except KeyboardInterrupt:
        fail("interrupted", 130, journal)
    print(json.dumps(summary, allow_nan=False))


def _require_device(device: str, size: str) -> None:
    """Raises InvalidRequest, before anything is drawn, for what this machine or this installation does not have."""
    if importlib.util.find_spec("onnxscript") is None:
        raise InvalidRequest(
            "bench-scale: exporting the drafter needs onnxscript: pip install 'ciar-cloud[bench,train]'"
        )
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and not number.isdecimal()):
        raise InvalidRequest(f"device: cpu, cuda or cuda:N (got {device!r})")
    if kind == "cuda":
        import torch  # only to ask: the model is the server's

        if not torch.cuda.is_available():
            raise InvalidRequest(f"device: {device} is not available here; use cpu, or a build of torch with CUDA")
    else:
        require_memory(size, available_gb())


def _trace(
    given: Path | None,
    methods: Mapping[str, Method],
    pictures: int | None,
    bundle: Path | None,
    out: Path,
    *,
    resume: bool,
) -> Trace:
    """The decisions to replay, which are then in out/trace.json too."""
    kept = out / "trace.json"
    source = given or (kept if resume and kept.is_file() else None)
    if source is None:
        own, calibration = choose_prompts(None, pictures or 1, bundle)
        num_asking = sum(method.mode in ASKING for method in methods.values())
        with progress_bar(len(own) * num_asking) as show:
            found = record(methods, own, calibration, bundle, show)
    else:
        found = Trace.load(source)
    found.require_grid(GRID, GRID)
    if not found.prompts or (pictures or 1) > len(found.prompts):
        raise InvalidRequest(f"pictures: the trace has {len(found.prompts)}, {pictures or 1} are asked for")
    found.save(kept)
    return found


def _model(stage: Stage) -> dict[str, Any]:
    manifest = stage.info().manifest
    return {
        "vocab_size": manifest.vocab_size,
        "num_tokens": manifest.num_tokens,
        "guidance": manifest.defaults.guidance,
        "feature_dim": manifest.feature_dim,
        "drafter_dim": manifest.drafter_heads * manifest.drafter_head_dim,
        "drafter_bytes": manifest.files["drafter.onnx"].size_bytes,
    }


def _rows(profiles: Mapping[str, Profile], methods: Mapping[str, Method]) -> dict[str, list[str]]:
    """Methods of each profile; the base has no drafts to be accepted, so no floor."""
    rows = {profile: list(methods) for profile in profiles}
    drafting = [name for name in methods if name != BASE]
    return rows | ({FLOOR.name: drafting} if drafting else {})


def _outlook(num_left: int, seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{num_left} pictures to draw: at most about {minutes} min, if nobody else uses the machine"


def _measure(
    stage: Stage, journal: Journal, tasks: Sequence[Any], replays: Mapping[str, Method]
) -> Sequence[Measurement]:
    with progress_bar(len(tasks)) as show:
        show("warming up", len(journal.measurements))
        stage.warm_up(tasks[0].prompt)
        manifest = stage.info().manifest
        setting = Setting(manifest, manifest.defaults.ask_share, {})
        return run(
            tasks,
            lambda task: stage.draw(replays[task.method], task, setting),
            journal,
            lambda task, num_done: show(f"{task.profile}: {task.method}", num_done),
        )


def _ordered(rows: Sequence[Row], profiles: Mapping[str, Profile], methods: Mapping[str, Method]) -> list[Row]:
    """As they were asked for; without agreement, which random tokens have not."""
    place = {key: index for index, key in enumerate(product((*profiles, FLOOR.name), methods))}
    return [replace(row, agreement=None) for row in sorted(rows, key=lambda row: place[row.profile, row.method])]


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
