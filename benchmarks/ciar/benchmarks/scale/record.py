"""Records a trace: pictures that a real pair draws, over real processes, by the methods that ask.

In: methods, prompts, a bundle. Out: a trace. The pictures are those that `ciar bench` measures: the pair's own
settings, the same gates with the same calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from ciar.benchmarks.commands import describe
from ciar.benchmarks.machine import Placement
from ciar.benchmarks.methods import Method, Setting
from ciar.benchmarks.scale.replay import ASKING
from ciar.benchmarks.scale.trace import Record, Trace
from ciar.benchmarks.stage import TIMEOUT_S, Stage
from ciar.device_client import Client, LocalServer
from ciar.device_client.transport import GrpcTransport, Session, Transport
from ciar.shared.types import CloudFrame, DeviceFrame, Draft, Open, Verdict

SEED = 0


class Tap:
    """A transport that notes of the last stream which of the sent tokens the cloud replaced, and where epochs began."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.corrected: dict[int, bool] = {}
        self.forks: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def collaborate(self, timeout_s: float) -> Session:
        self.corrected, self.forks = {}, []
        return cast(Session, _TappedSession(self._transport.collaborate(timeout_s), self))


class _TappedSession:
    def __init__(self, session: Session, tap: Tap) -> None:
        self._session, self._tap, self._epoch, self._carries_on = session, tap, 0, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def send(self, frame: DeviceFrame) -> None:
        if isinstance(frame, Draft):
            if frame.epoch > self._epoch and self._carries_on:
                self._tap.forks.append(frame.block.start)
            self._epoch = frame.epoch
            self._tap.corrected |= {int(p): False for p in frame.block.start + frame.block.asked.nonzero()[0]}
        if isinstance(frame, Open):
            self._carries_on = frame.carry_on
        self._session.send(frame)

    def receive(self, timeout_s: float) -> CloudFrame | None:
        frame = self._session.receive(timeout_s)
        if isinstance(frame, Verdict) and frame.epoch == self._epoch and frame.correction is not None:
            self._tap.corrected[frame.correction.position] = True
        return frame


def record(
    methods: Mapping[str, Method],
    prompts: Sequence[str],
    calibration: Sequence[str],
    bundle: Path | None,
    show: Callable[[str, int], None] = lambda what, num_done: None,
) -> Trace:
    """A trace of every prompt by every method that asks.

    calibration: prompts for the gates' thresholds; bundle: folder of the pair, None for the embedded one; show: called
    with what begins, and how many pictures are done. Raises what `Client.generate` raises.
    """
    asking = {name: method for name, method in methods.items() if method.mode in ASKING}
    with (
        LocalServer(bundle, arguments=("--threads", "1")) as server,
        Stage(server.address, Placement(None, None, None), ()) as stage,
        closing(Tap(GrpcTransport(server.address))) as tap,
        Client(transport=tap) as client,
    ):
        manifest = stage.info().manifest
        setting = Setting(manifest, manifest.defaults.ask_share, stage.calibrate(asking, calibration))
        records: list[Record] = []
        for prompt in prompts:
            for name, method in asking.items():
                show(f"recording: {name}", len(records))
                result = method.draw(client, prompt, SEED, setting, timeout_s=TIMEOUT_S)
                records.append(Record.of(name, prompt, result.decisions, tap.corrected, tap.forks))
    pair = describe(manifest)
    return Trace(
        pair=f"{pair['name']} {pair['version']}, digest {pair['digest']}",
        seed=SEED,
        prefix_rate=manifest.defaults.prefix_rate,
        grid_height=manifest.grid_height,
        grid_width=manifest.grid_width,
        records=tuple(records),
    )
