"""The budget of one picture: where each millisecond goes, on the device and in the cloud, and the floors beside it.

    python -m ciar.benchmarks.budget [--bundle PATH] [--method ciar] [--profile loopback] [--pictures 4]

The pictures are drawn by the product's client and server, with a stopwatch around their functions from outside; in
turn, the same pictures without any stopwatch, so that its cost is known. Then questions one at a time against a bare
ping-pong of the same bytes, in turn. Prints tables and one JSON line; times are means over pictures, of rpcs medians.
Where processor time is far below the clock's, a stage waited: for the other side, a lock, or a core.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Client as ControlClient
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from onnxruntime.capi import onnxruntime_inference_collection as ort_python
from rich.console import Console

from ciar.benchmarks.budget_server import PASS, WAITING
from ciar.benchmarks.cloud_step import floor_ms
from ciar.benchmarks.commands import choose_prompts, fail
from ciar.benchmarks.journal import require_writable
from ciar.benchmarks.machine import Placement, environment, on_cores, place
from ciar.benchmarks.measurement import Measurement, Task
from ciar.benchmarks.methods import Method, Setting, find_method
from ciar.benchmarks.pingpong import PingPong
from ciar.benchmarks.profiles import Profile, find_profile
from ciar.benchmarks.report import WIDTH, Sheet, to_table
from ciar.benchmarks.stage import TIMEOUT_S, Stage
from ciar.benchmarks.stopwatch import Stopwatch, Target, Total
from ciar.cloud_server.settings import EMBEDDED_BUNDLE
from ciar.device_client import Client, GrpcTransport, LocalServer, loop
from ciar.device_client.carried import CarriedTrack
from ciar.device_client.cli import EXIT_CODES
from ciar.device_client.client import Info
from ciar.device_client.decoder import Decoder
from ciar.device_client.drafter import NAME as DRAFTER
from ciar.device_client.drafter import Drafter
from ciar.device_client.gates import LocalRunLimit
from ciar.device_client.loop import Loop
from ciar.device_client.track import Track
from ciar.device_client.transport import GrpcSession
from ciar.shared import codec, sampling
from ciar.shared.errors import CiarError, ProtocolError
from ciar.shared.types import Block, Draft, Finish, Open, Opened, Sampling, Verdict, Written

NUM_QUESTIONS = 200
READ_AGAIN = "drafter: rows read again"
TRACK = ("add_draft", "next_block", "settle")


def device_targets() -> list[Target]:
    """The stages of a device."""
    return [
        Target(Client, "generate", "client: set up, result"),
        Target(Loop, "run", "loop"),
        Target(Drafter, "step", "drafter: inputs, outputs"),
        Target(Drafter, "read", READ_AGAIN),
        Target(ort_python.Session, "run_with_iobinding", "drafter: ONNX Runtime"),
        Target(loop, "draw", "draw: arg-max and lead"),
        Target(sampling, "gumbel", "draw: Gumbel noise"),
        Target(sampling, "keep_likely", "draw: top-k, top-p"),
        Target(LocalRunLimit, "ask", "gate"),
        *(Target(owner, name, "track") for owner in (Track, CarriedTrack) for name in TRACK),
        Target(codec, "encode_device_frame", "encode"),
        Target(codec, "decode_cloud_frame", "decode"),
        Target(GrpcSession, "__init__", "stream: open, close"),
        Target(GrpcSession, "close", "stream: open, close"),
        Target(GrpcSession, "send", "send: count, queue"),
        Target(GrpcSession, "receive", _receive),
        Target(Decoder, "__call__", "pixels"),
    ]


def _receive(_around: str, _session: GrpcSession, timeout_s: float) -> str:
    return "waiting for a frame" if timeout_s > 0 else "look for a frame"


@dataclass(frozen=True)
class Question:
    """One question at a time, over the bare ping-pong of the same bytes; medians."""

    num_questions: int
    bytes_up: int
    bytes_down: int
    question_ms: float
    forward_ms: float
    """The pass of the model."""
    queue_ms: float
    """Between arrival and the start of the pass."""
    rpc_ms: float
    """The question without its pass: codec, gRPC, wake-ups, queue, rule."""
    bare_ms: float
    ratio: float
    """rpc_ms over bare_ms, turn by turn."""


@dataclass(frozen=True)
class Floors:
    """What no change of ours removes, a picture."""

    cloud_weights_ms: float
    """Reading all weights of the cloud once a pass, at the bandwidth that a plain sum reaches."""
    cloud_flops_ms: float
    """2 operations a weight, row and sequence, at the rate that a plain matrix product reaches."""
    drafter_weights_ms: float
    """The same for the drafter's file, once a step."""
    num_round_trips: float
    """One for the prefix, and one for each correction, since what comes after depends on the answer; where the cloud
    carries on behind them, one for all."""
    round_trips_ms: float
    """They at the profile's round trip and the bare ping-pong's time."""


class Budget:
    """Times of many pictures, added up by thread and stage."""

    def __init__(self) -> None:
        self.plain: list[Measurement] = []
        """Pictures without a stopwatch."""
        self.timed: list[Measurement] = []
        self.device: dict[tuple[str, str], Total] = {}
        self.cloud: dict[tuple[str, str], Total] = {}
        self.cloud_cpu_s: dict[str, float] = {}

    def add(self, device: Mapping[tuple[str, str], Total], cloud: Mapping[str, Any]) -> None:
        """What one picture left on the stopwatches of both sides."""
        _add(self.device, device)
        _add(self.cloud, {(thread, stage): Total(**total) for thread, stage, total in cloud["stages"]})
        for thread, seconds in cloud["cpu_s"].items():
            self.cloud_cpu_s[thread] = self.cloud_cpu_s.get(thread, 0.0) + seconds

    @property
    def stopwatch_share(self) -> float:
        """What the stopwatches add to a picture's time, as a share of it."""
        ratios = [timed.seconds / plain.seconds for timed, plain in zip(self.timed, self.plain, strict=True)]
        return statistics.median(ratios) - 1

    def mean(self, name: str) -> float:
        """Mean of a field over the timed pictures."""
        return statistics.fmean(getattr(m, name) for m in self.timed)


def _add(sums: dict[tuple[str, str], Total], more: Mapping[tuple[str, str], Total]) -> None:
    for key, total in more.items():
        sums.setdefault(key, Total()).add(total)


def draw_pictures(
    stages: tuple[Stage, Stage], control: Any, method: Method, tasks: Sequence[Task], setting: Setting
) -> Budget:
    """Every picture twice in turn: with the plain server and no stopwatch, and with a stopwatch on both sides."""
    budget, stopwatch = Budget(), Stopwatch()
    plain, timed = stages
    for task in tasks:
        budget.plain.append(plain.draw(method, task, setting))
        with stopwatch.on(device_targets()):
            stopwatch.take()
            _ask(control)
            budget.timed.append(timed.draw(method, task, setting))
            budget.add(stopwatch.take(), _ask(control))
    return budget


def _ask(control: Any) -> dict[str, Any]:
    control.send("take")
    found: dict[str, Any] = control.recv()
    return found


def ask_questions(address: str, prompt: str, info: Info, tokens: Sequence[int]) -> Question:
    """Questions about one token, with the local ones before it that the pair's share makes usual.

    tokens: (T,) of a picture, so that most questions are confirmed.
    """
    manifest = info.manifest
    size = max(1, round(1 / manifest.defaults.ask_share))
    defaults = manifest.defaults
    sampling = Sampling(guidance=defaults.guidance, temperature=defaults.temperature)
    opening = Open(prompt, sampling, 1, manifest.device_digests(), Block.empty(manifest.feature_dim))
    rows: list[tuple[float, float, float, float, int, int]] = []
    transport = GrpcTransport(address)
    with PingPong() as pingpong, closing(transport):
        while len(rows) < NUM_QUESTIONS:
            with closing(transport.collaborate(TIMEOUT_S)) as session:
                session.send(opening)
                _receive_as(session, Opened)
                _receive_as(session, Written)
                epoch, start = 0, 1
                while start + size <= manifest.num_tokens and len(rows) < NUM_QUESTIONS:
                    draft = Draft(epoch, _block(tokens, start, size, manifest.feature_dim))
                    up, down = session.bytes_up, session.bytes_down
                    began = time.perf_counter()
                    session.send(draft)
                    verdict = _receive_as(session, Verdict)
                    seconds = time.perf_counter() - began
                    up, down = session.bytes_up - up, session.bytes_down - down
                    cost = verdict.cost
                    bare = pingpong.bounce(up, down)
                    rows.append((seconds, cost.forward_ns / 1e9, cost.queue_ns / 1e9, bare, up, down))
                    epoch = verdict.correction.next_epoch if verdict.correction else epoch
                    start = verdict.verified_through
                session.send(Finish())
    seconds_, forward, queue, bares, ups, downs = (np.array(column) for column in zip(*rows, strict=True))
    rpc = seconds_ - forward
    return Question(
        num_questions=len(rows),
        bytes_up=int(np.median(ups)),
        bytes_down=int(np.median(downs)),
        question_ms=1000 * float(np.median(seconds_)),
        forward_ms=1000 * float(np.median(forward)),
        queue_ms=1000 * float(np.median(queue)),
        rpc_ms=1000 * float(np.median(rpc)),
        bare_ms=1000 * float(np.median(bares)),
        ratio=float(np.median(rpc / bares)),
    )


def _receive_as(session: Any, kind: type[Any]) -> Any:
    frame = session.receive(TIMEOUT_S)
    if not isinstance(frame, kind):
        raise ProtocolError(f"server: {type(frame).__name__} in place of {kind.__name__}")
    return frame


def _block(tokens: Sequence[int], start: int, size: int, feature_dim: int) -> Block:
    """Local tokens with features, and a question last."""
    asked = np.arange(size) == size - 1  # (n,)
    features = np.full((size - 1, feature_dim), 0.01, np.float16)  # (n − 1, r)
    return Block(start, np.array(tokens[start : start + size], np.int64), asked, ~asked, features)


def find_floors(bundle: Path, budget: Budget, method: Method, profile: Profile, question: Question) -> Floors:
    """Floors of a picture drawn as those of the budget were."""
    passes = {stage: total for (_, stage), total in budget.cloud.items() if stage.startswith(PASS)}
    num_pictures = len(budget.timed)
    num_passes = sum(total.num_calls for total in passes.values()) / num_pictures
    num_steps = sum(t.num_calls for (_, s), t in budget.device.items() if s == "drafter: inputs, outputs")
    num_rows = 2 * (budget.mean("num_asked") + budget.mean("num_local") + num_passes)  # two sequences with guidance
    num_weights = (bundle / "cloud.safetensors").stat().st_size / 2  # float16
    corrections = budget.mean("num_corrections")
    round_trips = 1 + (min(1, corrections) if method.carries_on else corrections)
    return Floors(
        cloud_weights_ms=num_passes * floor_ms(bundle),
        cloud_flops_ms=1000 * 2 * num_weights * num_rows / _flops_a_second(),
        drafter_weights_ms=1000 * num_steps / num_pictures * _read_s((bundle / DRAFTER).stat().st_size),
        num_round_trips=round_trips,
        round_trips_ms=round_trips * (profile.rtt_ms + question.bare_ms),
    )


def _flops_a_second() -> float:
    """Of a square matrix product in float32 on this machine's numpy."""
    a = np.ones((512, 512), np.float32)
    return 2 * 512**3 / min(_seconds(lambda: a @ a) for _ in range(5))


def _read_s(num_bytes: int) -> float:
    """Seconds to read so many bytes once, at the bandwidth that a plain sum reaches."""
    values = np.ones(num_bytes // 4, np.float32)
    return min(_seconds(values.sum) for _ in range(5))


def _seconds(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def sheets(budget: Budget, floors: Floors, question: Question) -> Iterator[Sheet]:
    """The tables of the report."""
    num_pictures = len(budget.timed)
    threads = {thread for thread, _ in budget.device}
    # Its waiting began before the picture did, and says nothing of it.
    busy = {key: total for key, total in budget.cloud.items() if key[1] != WAITING}
    yield _stage_sheet("device, the thread that draws", budget.device, "MainThread", num_pictures)
    for thread in sorted(threads - {"MainThread"}):
        yield _stage_sheet(f"device, beside it: {thread}", budget.device, thread, num_pictures)
    yield _stage_sheet("cloud, the engine's thread at work", busy, "engine", num_pictures)
    yield _stage_sheet("cloud, the event loop's thread (named stages only)", budget.cloud, "MainThread", num_pictures)
    yield Sheet(
        "cloud, processor time by thread, a picture",
        ("thread", "ms"),
        [(name, f"{1000 * s / num_pictures:.1f}") for name, s in budget.cloud_cpu_s.items()],
    )
    yield Sheet(
        "cloud, passes by kind (wall time of the runner)",
        ("kind", "a picture", "ms each", "ms"),
        [
            (
                stage.removeprefix(PASS),
                f"{total.num_calls / num_pictures:.1f}",
                f"{1000 * total.whole_s / total.num_calls:.2f}",
                f"{1000 * total.whole_s / num_pictures:.1f}",
            )
            for (_, stage), total in sorted(budget.cloud.items())
            if stage.startswith(PASS)
        ],
    )
    yield Sheet(
        "floors, a picture",
        ("what cannot be removed", "ms"),
        [
            ("cloud: reading its weights once a pass", f"{floors.cloud_weights_ms:.1f}"),
            ("cloud: operations of its rows", f"{floors.cloud_flops_ms:.1f}"),
            ("device: reading the drafter's weights once a step", f"{floors.drafter_weights_ms:.1f}"),
            (f"network: {floors.num_round_trips:.1f} round trips in a row", f"{floors.round_trips_ms:.1f}"),
        ],
    )
    yield Sheet(
        f"one question at a time, {question.bytes_up} B up, {question.bytes_down} B down, direct",
        ("what", "ms"),
        [
            ("question and answer", f"{question.question_ms:.3f}"),
            ("of it the pass", f"{question.forward_ms:.3f}"),
            ("the rest: the rpc", f"{question.rpc_ms:.3f}"),
            ("of it the cloud's queue", f"{question.queue_ms:.3f}"),
            ("bare ping-pong of the same bytes", f"{question.bare_ms:.3f}"),
            ("rpc over bare ping-pong, turn by turn", f"{question.ratio:.2f}×"),
        ],
    )


def _stage_sheet(title: str, totals: Mapping[tuple[str, str], Total], thread: str, num_pictures: int) -> Sheet:
    own = {stage: total for (name, stage), total in totals.items() if name == thread and not stage.startswith(PASS)}
    whole_s = sum(total.own_s for total in own.values())
    return Sheet(
        f"{title}: {1000 * whole_s / num_pictures:.1f} ms a picture",
        ("stage", "calls", "µs each", "ms", "share", "cpu ms"),
        [
            (
                stage,
                f"{total.num_calls / num_pictures:.1f}",
                f"{1e6 * total.own_s / total.num_calls:.1f}",
                f"{1000 * total.own_s / num_pictures:.1f}",
                f"{total.own_s / whole_s:.1%}",
                f"{1000 * total.own_cpu_s / num_pictures:.1f}",
            )
            for stage, total in sorted(own.items(), key=lambda item: -item[1].own_s)
        ],
    )


def to_dict(budget: Budget, floors: Floors, question: Question) -> dict[str, Any]:
    """All of it, in JSON's types; milliseconds a picture."""

    def stages(totals: Mapping[tuple[str, str], Total]) -> list[dict[str, Any]]:
        count = len(budget.timed)
        return [
            {
                "thread": thread,
                "stage": stage,
                "calls": total.num_calls / count,
                "own_ms": round(1000 * total.own_s / count, 4),
                "own_cpu_ms": round(1000 * total.own_cpu_s / count, 4),
                "whole_ms": round(1000 * total.whole_s / count, 4),
            }
            for (thread, stage), total in sorted(totals.items())
        ]

    return {
        "environment": environment(),
        "num_pictures": len(budget.timed),
        "picture_ms": 1000 * statistics.median(m.seconds for m in budget.timed),
        "plain_picture_ms": 1000 * statistics.median(m.seconds for m in budget.plain),
        "stopwatch_share": budget.stopwatch_share,
        "device": stages(budget.device),
        "cloud": stages(budget.cloud),
        "cloud_cpu_ms": {name: 1000 * s / len(budget.timed) for name, s in budget.cloud_cpu_s.items()},
        "floors": asdict(floors),
        "question": asdict(question),
    }


@contextmanager
def _stages(bundle: Path, profile: Profile) -> Iterator[tuple[Stage, Stage, Any, Placement]]:
    """A plain server and one with a stopwatch, each with a stage, and the latter's control."""
    placement = place()
    with ExitStack() as stack:
        control_path = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "control")
        arguments = ("--threads", "1")
        with on_cores(placement.server):
            plain = stack.enter_context(LocalServer(bundle, arguments=arguments))
            timed = stack.enter_context(
                LocalServer(
                    bundle, arguments=(*arguments, "--control", control_path), module="ciar.benchmarks.budget_server"
                )
            )
        stack.enter_context(on_cores(placement.device))
        stages = [stack.enter_context(Stage(s.address, placement, (profile,))) for s in (plain, timed)]
        control = stack.enter_context(ControlClient(control_path, family="AF_UNIX"))
        yield stages[0], stages[1], control, placement


def measure_budget(
    bundle: Path, method: Method, profile: Profile, num_pictures: int
) -> tuple[Budget, Floors, Question, Placement]:
    """Draw, ask, and find the floors. Raises InvalidRequest for a bundle without words to make prompts of."""
    prompts, calibration = choose_prompts(None, num_pictures, bundle)
    with _stages(bundle, profile) as (plain, timed, control, placement):
        for stage in (plain, timed):
            stage.warm_up(prompts[0])
        info = plain.info()
        priors = plain.calibrate({method.name: method}, calibration)
        setting = Setting(info.manifest, info.manifest.defaults.ask_share, priors)
        tasks = [Task(profile.name, method.name, prompt, 0) for prompt in prompts]
        budget = draw_pictures((plain, timed), control, method, tasks, setting)
        question = ask_questions(plain.address, prompts[0], info, budget.plain[0].tokens)
    return budget, find_floors(bundle, budget, method, profile, question), question, placement


def budget(
    bundle: Annotated[Path, typer.Option(help="Folder of the pair.")] = EMBEDDED_BUNDLE,
    method: Annotated[str, typer.Option(help="Row of the benchmark.")] = "ciar",
    profile: Annotated[str, typer.Option(help="Network, by name or JSON.")] = "loopback",
    pictures: Annotated[int, typer.Option(min=1, help="How many, twice each.")] = 4,
    out: Annotated[Path | None, typer.Option(help="Folder for budget.json; without it nothing is written.")] = None,
) -> None:
    """Say where each millisecond of a picture goes. Exit codes as of `ciar bench`."""
    console = Console(width=WIDTH, highlight=False)
    try:
        chosen, network = find_method(method), find_profile(profile)
        if out is not None:
            require_writable(out)
        found, floors, question, placement = measure_budget(bundle, chosen, network, pictures)
        report = to_dict(found, floors, question) | {"method": chosen.name, "profile": network.name}
        if out is not None:
            (out / "budget.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    except CiarError as error:
        fail(str(error), EXIT_CODES.get(type(error), 1))
    except KeyboardInterrupt:
        fail("interrupted", 130)
    console.print(f"{chosen.name} through {network.name}, {pictures} pictures; {placement.describe()}")
    console.print(
        f"a picture: {report['plain_picture_ms']:.0f} ms; with the stopwatches {report['picture_ms']:.0f} ms "
        f"({found.stopwatch_share:+.1%}, picture by picture)"
    )
    for sheet in sheets(found, floors, question):
        console.print()
        console.print(to_table(sheet))
    print(json.dumps(report, allow_nan=False))


def main() -> None:
    """Entry point."""
    typer.run(budget)


if __name__ == "__main__":
    main()
