"""The cloud server with a stopwatch on its stages.

Run as `python -m ciar.benchmarks.budget_server --address … --control SOCKET`.

It is the product's server, whose functions are wrapped from outside before it is made. Over the control socket (a Unix
socket of `multiprocessing.connection`) it answers "take" with what has added up since the last one: the stages of its
two threads, the wall time of passes by kind, and the processor time of each thread.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

import torch
from onnxruntime.capi import onnxruntime_inference_collection as ort_python

from ciar.benchmarks.stopwatch import Stopwatch, Target
from ciar.cloud_server import ort_layers, runner, session
from ciar.cloud_server.batch import Segment
from ciar.cloud_server.engine import Engine
from ciar.cloud_server.ort_layers import OrtLayers
from ciar.cloud_server.runner import ModelRunner
from ciar.cloud_server.server import CloudServer, serve
from ciar.cloud_server.session import Session
from ciar.cloud_server.settings import Settings
from ciar.shared import codec, sampling

WAITING = "waiting for work"
LAYERS, HEAD = "layers: rows in and out of ONNX Runtime", "head: rows in and out"
PASS = "pass: "
"""Begins the name of a whole pass."""


def targets() -> list[Target]:
    """The stages of a server. The engine's thread first, then the event loop's."""
    return [
        Target(Engine, "_receive", WAITING),
        Target(Engine, "step", "engine: schedule, hand out"),
        Target(Session, "receive", "session: take a frame"),
        Target(Session, "next_segment", "session: next segment"),
        Target(Session, "absorb", "session: verify and answer"),
        Target(asyncio.BaseEventLoop, "call_soon_threadsafe", "wake the event loop"),
        Target(ModelRunner, "extend", "runner: pack, slice, split"),
        Target(ModelRunner, "extend", _kind),  # around the one above: its whole time is the pass's
        Target(ModelRunner, "_embed", "embedding"),
        Target(ModelRunner, "_spans", "runner: spans"),
        Target(ModelRunner, "_attend", "runner: spans"),
        Target(OrtLayers, "run", LAYERS),
        Target(OrtLayers, "head", HEAD),
        Target(ort_python.Session, "run", _graph),
        Target(ort_layers, "rotate", "rotary embedding"),
        Target(runner, "_guide", "guidance"),
        Target(session, "sample_rows", "sample: arg-max and lead"),
        Target(sampling, "gumbel", "sample: Gumbel noise"),
        Target(codec, "decode_device_frame", "decode"),
        Target(codec, "encode_cloud_frame", "encode"),
    ]


def _kind(_around: str, _runner: ModelRunner, segments: list[Segment]) -> str:
    """What a pass is for, as far as its rows tell."""
    num_rows = max(segment.num_rows for segment in segments)
    if any(segment.start == 0 for segment in segments):
        return f"{PASS}first, with the prompt"
    if num_rows == 1:
        return f"{PASS}1 row"
    return f"{PASS}2 to 8 rows" if num_rows <= 8 else f"{PASS}more than 8 rows"


def _graph(around: str, *_: object) -> str:
    return "ONNX Runtime: head" if around == HEAD else "ONNX Runtime: layers"


class Control(threading.Thread):
    """Answers on the control socket."""

    def __init__(self, path: str, stopwatch: Stopwatch) -> None:
        super().__init__(name="control", daemon=True)
        self._listener = Listener(path, family="AF_UNIX")
        self._stopwatch = stopwatch
        self._cpu: dict[str, float] = {}

    def run(self) -> None:
        while True:
            with self._listener.accept() as connection:
                try:
                    while connection.recv() == "take":
                        connection.send(self._take())
                except EOFError:
                    pass

    def _take(self) -> dict[str, Any]:
        stages = [(thread, stage, asdict(total)) for (thread, stage), total in self._stopwatch.take().items()]
        before, self._cpu = self._cpu, cpu_seconds()
        return {"stages": stages, "cpu_s": {name: now - before.get(name, 0.0) for name, now in self._cpu.items()}}


def cpu_seconds() -> dict[str, float]:
    """Processor time of this process by thread: the engine's, the main one's, and all others' (gRPC's)."""
    seconds = {}
    for thread in threading.enumerate():
        if thread.ident is not None and thread.name in ("engine", "MainThread"):
            seconds[thread.name] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return seconds | {"others": time.process_time() - sum(seconds.values())}


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--control", required=True, help="path of a Unix socket to be made")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    flags = vars(parser.parse_args())
    control = flags.pop("control")
    settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    torch.set_num_threads(settings.threads)
    stopwatch = Stopwatch()
    make_attend = ModelRunner._attend

    def make_timed_attend(own: ModelRunner, spans: Any) -> Callable[..., Any]:
        return stopwatch.wrap(make_attend(own, spans), "attention and cache")

    ModelRunner._attend = make_timed_attend  # type: ignore[method-assign]
    with stopwatch.on(targets()):
        Control(control, stopwatch).start()
        serve(CloudServer(settings))


if __name__ == "__main__":
    main()
