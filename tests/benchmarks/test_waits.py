"""Where a picture's time went, on a clock that only the fakes move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ciar.benchmarks.measurement import Measurement, Task, measure
from ciar.benchmarks.methods import CIAR, Setting, find_method
from ciar.benchmarks.waits import TimedTransport, Waits
from ciar.device_client import Client
from ciar.device_client.transport import Session
from ciar.shared.bundle import Manifest
from ciar.shared.sampling import sample_rows
from ciar.shared.types import CloudFrame, Cost, DeviceFrame, Verdict
from tests.device_client.fakes import FakeCloud

WAIT_S, FORWARD_S, QUEUE_S, DRAFT_S, SEND_S, TICK_S = 0.010, 0.003, 0.001, 0.002, 0.0005, 1e-6


class Clock:
    """Every look costs a tick: the code between two looks is never free."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += TICK_S
        return self.now


class SlowCloud(FakeCloud):
    """Every frame waited for takes WAIT_S, of which the cloud says that FORWARD_S + QUEUE_S were its own."""

    wall: Clock

    def generate(self, timeout_s: float) -> Session:  # type: ignore[override]
        return SlowSession(super().generate(timeout_s), self.wall)


class SlowSession:
    def __init__(self, session: Session, clock: Clock) -> None:
        self._session, self._clock = session, clock
        self.bytes_up = self.bytes_down = 0
        self.num_waits = 0

    def send(self, frame: DeviceFrame) -> None:
        self._clock.now += SEND_S
        self._session.send(frame)
        self.bytes_up = self._session.bytes_up

    def receive(self, timeout_s: float) -> CloudFrame | None:
        if timeout_s > 0:
            self._clock.now += WAIT_S
        frame = self._session.receive(timeout_s)
        return with_cost(frame) if isinstance(frame, Verdict) else frame

    def close(self) -> None:
        self._session.close()


def with_cost(frame: Verdict) -> Verdict:
    return replace(frame, cost=Cost(int(FORWARD_S * 1e9), int(QUEUE_S * 1e9), 1))


@pytest.fixture
def timed(
    monkeypatch: pytest.MonkeyPatch, manifest: Manifest, device_folder: Path, tmp_path: Path
) -> Callable[[str], Measurement]:
    """`timed(method)` draws one picture by the fake clock."""
    clock = Clock()

    def slow_samples(*arguments: object) -> object:
        clock.now += DRAFT_S
        return sample_rows(*arguments)  # type: ignore[arg-type]

    for module in ("ciar.device_client.decoding", "ciar.device_client.client", "ciar.benchmarks.measurement"):
        monkeypatch.setattr(f"{module}.perf_counter", clock)
    monkeypatch.setattr("ciar.device_client.decoding.sample_rows", slow_samples)
    cloud = SlowCloud(manifest, {name: (device_folder / name).read_bytes() for name in manifest.files})
    cloud.wall = clock
    transport = TimedTransport(cloud, clock)
    client = Client(transport=transport, cache_dir=tmp_path / "cache")

    def run(name: str) -> Measurement:
        method = find_method(name)
        setting = Setting(manifest, 0.3, {key: [0.0, 1.0] for key in (name, CIAR)})
        task = Task("loopback", name, "prompt", 3)
        return measure(client, transport, method, task, setting, timeout_s=60)

    return run


@pytest.mark.parametrize("name", ["cloud-window-1", "cloud", "lossless", "ciar", "entropy", "code", "device"])
def test_the_parts_add_up_to_the_whole(timed: Callable[[str], Measurement], name: str) -> None:
    m = timed(name)
    parts = m.network_s + m.cloud_s + m.drafting_s + m.other_s
    assert parts + m.residual_s == pytest.approx(m.seconds)
    assert abs(m.residual_s) <= 0.05 * m.seconds
    assert abs(m.bookkeeping_s) <= 0.05 * m.seconds  # on this clock, nothing but ticks


def test_the_cloud_alone_only_waits(timed: Callable[[str], Measurement]) -> None:
    m = timed("cloud-window-1")
    assert m.cloud_s > 0
    assert m.network_s > m.cloud_s
    assert m.drafting_s < 1e-4
    assert (m.num_local, m.num_verified, m.num_passes > 0) == (0, 0, True)


def test_the_device_alone_waits_for_the_opening_only(timed: Callable[[str], Measurement]) -> None:
    m = timed("device")
    assert m.drafting_s >= DRAFT_S
    assert m.network_s + m.cloud_s == pytest.approx(WAIT_S, rel=0.01)
    assert m.messages_s == pytest.approx(2 * SEND_S, rel=0.1)
    assert m.num_local == 16


def test_lossless_overlaps(timed: Callable[[str], Measurement]) -> None:
    m = timed("lossless")
    assert m.num_local == 0
    own_s = m.drafting_s + m.other_s + m.residual_s
    assert m.overlap_s == pytest.approx(max(own_s, m.cloud_compute_s))


def test_a_wait_shorter_than_its_cost_is_the_clouds() -> None:
    waits = Waits()
    waits.add(0.5, with_cost(Verdict(0, 0, (1,), 1)))
    assert (waits.network_s, waits.cloud_s) == (pytest.approx(0.5 - FORWARD_S - QUEUE_S), FORWARD_S + QUEUE_S)
    waits = Waits()
    waits.add(TICK_S, with_cost(Verdict(0, 0, (1,), 1)))
    assert (waits.network_s, waits.cloud_s, waits.num_waits) == (0, TICK_S, 1)
