"""The stage: a server process, a relay process for each profile, and a client through each of them, warm.

In: where the server is (or which bundle to serve), and profiles. Out: `draw`, which measures one task. Every part
is put on its core before it starts, so that its threads are born there.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ciar.benchmarks.accepting import AcceptingTransport
from ciar.benchmarks.gates import Recorder, uncertainty
from ciar.benchmarks.machine import Placement, on_cores, place
from ciar.benchmarks.measurement import Measurement, Task, measure
from ciar.benchmarks.methods import CIAR, Method, Setting
from ciar.benchmarks.network import RelayProcess
from ciar.benchmarks.profiles import FLOOR, Profile
from ciar.benchmarks.waits import TimedTransport
from ciar.device_client import Client, GrpcTransport, LocalServer, Mode, make_gate
from ciar.device_client.client import Info
from ciar.device_client.transport import Transport
from ciar.shared.bundle import Manifest

NUM_CALLS = 9
"""Calls behind the round trip that is reported beside the one that was asked for."""

CALIBRATION_SEED = 2**63
"""The first one; far from seeds that anyone measures."""

TIMEOUT_S = 300.0
"""For one picture: a bound on a hung network, not a target."""


class Stage:
    """Everything that runs during a benchmark."""

    def __init__(
        self,
        address: str,
        placement: Placement,
        profiles: Sequence[Profile],
        *,
        timeout_s: float = TIMEOUT_S,
        warming: Mapping[str, Any] | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        """timeout_s: of one picture; warming: arguments of `Client.generate` for the pictures that warm up, if whole
        ones would take too long; cache_dir: of the clients.
        """
        self.placement = placement
        self._timeout_s, self._warming, self._cache_dir = timeout_s, warming, cache_dir
        self.rpc_s: dict[str, float] = {}
        """Median time of a small call through each profile, known once warm."""
        self._address, self._profiles = address, profiles
        self._clients: dict[str, tuple[Client, TimedTransport]] = {}
        self._stack = ExitStack()
        self._direct = self._stack.enter_context(Client(address, cache_dir=cache_dir))

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def address(self) -> str:
        """HOST:PORT of the server itself."""
        return self._address

    def info(self) -> Info:
        """What the server says of itself. Raises Unavailable if nothing answers."""
        return self._direct.info()

    def warm_up(self, prompt: str) -> None:
        """Start the relays; fetch and load the device's files; have every client and the server draw once.

        Raises InvalidRequest for a prompt that the pair does not know.
        """
        self._direct.generate(prompt, timeout_s=self._timeout_s, **(self._warming or {"mode": Mode.CLOUD}))
        for profile in self._profiles:
            address = self._address
            if not profile.is_direct:
                with on_cores(self.placement.relay):
                    address = self._stack.enter_context(RelayProcess(self._address, profile)).address
            cloud: Transport = GrpcTransport(address)
            transport = TimedTransport(AcceptingTransport(cloud) if profile.name == FLOOR.name else cloud)
            client = self._stack.enter_context(
                Client(transport=transport, cache_dir=self._cache_dir, connect_timeout_s=30.0)
            )
            client.generate(prompt, timeout_s=self._timeout_s, **(self._warming or {}))
            self._clients[profile.name] = client, transport
            if profile.name != FLOOR.name:
                self.rpc_s[profile.name] = statistics.median(_rpc_s(transport) for _ in range(NUM_CALLS))

    def calibrate(self, methods: Mapping[str, Method], prompts: Sequence[str]) -> dict[str, list[float]]:
        """The doubts that methods begin with, ascending, and U by `CIAR`: of roll-outs under the pair's own gate.

        prompts: others than the measured ones. Nothing is drawn if no method begins with a doubt.
        """
        doubts = {name: method.doubt for name, method in methods.items() if method.doubt is not None}
        if not doubts:
            return {}
        doubts |= {CIAR: uncertainty}
        manifest, seen = self.info().manifest, {name: list[float]() for name in doubts}
        for seed, prompt in enumerate(prompts, CALIBRATION_SEED):
            recorder = Recorder(make_gate(manifest.defaults.gate, manifest), doubts)
            self._direct.generate(prompt, seed=seed, gate=recorder, timeout_s=TIMEOUT_S)
            for name, values in seen.items():
                values += recorder.values(name)
        return {name: np.sort(values).tolist() for name, values in seen.items()}  # not a number: last, most in doubt

    def draw(self, method: Method, task: Task, setting: Setting) -> Measurement:
        """Measure one picture through the task's profile."""
        client, transport = self._clients[task.profile]
        if task.profile == FLOOR.name:  # the first drawing fetches condition and prefix
            method.draw(client, task.prompt, task.seed, setting, timeout_s=self._timeout_s)
        return measure(client, transport, method, task, setting, timeout_s=self._timeout_s)


@contextmanager
def open_stage(server: str | None, bundle: Path | None, profiles: Sequence[Profile]) -> Iterator[Stage]:
    """server: HOST:PORT; without one, a server of the bundle is started here, and processes are pinned to cores.

    Raises Unavailable if no server answers or starts, InvalidRequest for a bundle that cannot be served.
    """
    placement = Placement(None, None, None) if server else place()
    with ExitStack() as stack:
        if server is None:
            with on_cores(placement.server):
                server = stack.enter_context(LocalServer(bundle, arguments=("--threads", "1"))).address
        stack.enter_context(on_cores(placement.device))
        opened = stack.enter_context(Stage(server, placement, profiles))
        opened.info()
        yield opened


def _rpc_s(transport: TimedTransport) -> float:
    began = perf_counter()
    transport.model_info(timeout_s=TIMEOUT_S)
    return perf_counter() - began


def digest(manifest: Manifest) -> str:
    """One short digest of all files of a bundle."""
    lines = sorted(f"{name} {entry.sha256}" for name, entry in manifest.files.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
