"""The engine: everything that waits goes into one pass, in turn, and one session's fault stays its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ciar.cloud_server.batch import Segment
from ciar.cloud_server.engine import Engine, SessionFactory
from ciar.cloud_server.session import Session
from ciar.shared.errors import CiarError, InternalError, InvalidRequest, ProtocolError
from ciar.shared.types import CloudFrame, Draft, Finish, Lantern, Limits, Opened, Summary, Verdict, Written
from tests.support.fake_runner import FakeRunner, R, T, admitted, block, own_picture

DEADLINE_S = 30


class GatedRunner(FakeRunner):
    """Holds every pass at its beginning until the test lets it go, once `hold` has been called."""

    def __init__(self) -> None:
        super().__init__()
        self._entered, self._go = threading.Semaphore(0), threading.Semaphore(0)
        self._holding = False
        self.fails_on: Callable[[Sequence[Segment]], bool] = lambda _: False

    def extend(self, segments: Sequence[Segment]) -> list[NDArray[np.float32]]:
        if self._holding:
            self._entered.release()
            assert self._go.acquire(timeout=DEADLINE_S)
        if self.fails_on(segments):
            self.passes.append(list(segments))
            raise RuntimeError("the model is broken")
        return super().extend(segments)

    def hold(self) -> None:
        self._holding = True

    def wait_for_pass(self) -> None:
        assert self._entered.acquire(timeout=DEADLINE_S)

    def let_go(self, *, hold_next: bool = False) -> None:
        self._holding = hold_next
        self._go.release()

    def slots(self) -> list[set[int]]:
        return [{segment.slot for segment in segments} for segments in self.passes]


def make_session(session_id: str, **fields: Any) -> SessionFactory:
    limits = Limits(max_block_tokens=T, max_in_flight=4)
    return partial(Session, admitted(session_id, **fields), num_tokens=T, feature_dim=R, limits=limits)


class Device:
    """What one session's device sees."""

    def __init__(self, engine: Engine, slot: int, session_id: str | None = None, **fields: Any) -> None:
        self.engine, self.id = engine, session_id or f"session {slot}"
        self._frames: queue.SimpleQueue[CloudFrame | CiarError] = queue.SimpleQueue()
        engine.open(self.id, slot, self._frames.put, make_session(self.id, **fields))

    def read(self) -> CloudFrame | CiarError:
        return self._frames.get(timeout=DEADLINE_S)

    def read_prefix(self) -> tuple[int, ...]:
        assert isinstance(self.read(), Opened)
        prefix = self.read()
        assert isinstance(prefix, Written)
        return prefix.tokens

    def draft(self, tokens: list[int], start: int) -> None:
        self.engine.submit(self.id, Draft(0, block(tokens, start)))


@pytest.fixture
def runner() -> GatedRunner:
    return GatedRunner()


@pytest.fixture
def start_engine(runner: GatedRunner) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def start(**fields: Any) -> Engine:
        engine = Engine(runner, **fields)
        engine.start()
        engines.append(engine)
        return engine

    yield start
    runner.let_go()
    for engine in engines:
        engine.stop()
        assert not engine.alive


def test_all_that_queued_during_a_pass_goes_into_the_next(
    runner: GatedRunner, start_engine: Callable[..., Engine]
) -> None:
    engine = start_engine()
    runner.hold()
    first = Device(engine, 0, write_until=2)
    runner.wait_for_pass()
    others = [Device(engine, slot, write_until=2, condition=(slot, 9)) for slot in (1, 2, 3)]
    runner.let_go()
    for device in (first, *others):
        device.read_prefix()
    assert runner.slots()[:3] == [{0}, {0, 1, 2, 3}, {1, 2, 3}]


def test_drafts_of_many_sessions_and_a_prefill_share_a_pass(
    runner: GatedRunner, start_engine: Callable[..., Engine]
) -> None:
    engine = start_engine()
    devices = [Device(engine, slot, write_until=1, condition=(slot, slot)) for slot in range(3)]
    pictures = [own_picture(np.array([slot, slot])) for slot in range(3)]
    for device, picture in zip(devices, pictures, strict=True):
        assert list(device.read_prefix()) == picture[:1]
    runner.hold()
    devices[0].draft(pictures[0][1:4], 1)
    runner.wait_for_pass()
    num_passes = len(runner.passes)
    devices[0].draft(pictures[0][4:7], 4)
    devices[0].draft(pictures[0][7:9], 7)
    devices[1].draft(pictures[1][1:9], 1)
    devices[2].draft(pictures[2][1:3], 1)
    newcomer = Device(engine, 3, write_until=1)
    runner.let_go()
    newcomer.read_prefix()
    for device, ends in zip(devices, [[4, 7, 9], [9], [3]], strict=True):
        verdicts = [device.read() for _ in ends]
        assert all(isinstance(verdict, Verdict) and verdict.correction is None for verdict in verdicts)
        assert [verdict.verified_through for verdict in verdicts] == ends  # type: ignore[union-attr]
    assert runner.slots()[num_passes:] == [{0}, {0, 1, 2, 3}]


def test_a_pass_keeps_to_its_row_budget(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine(max_pass_rows=5)
    runner.hold()
    devices = [Device(engine, 0, write_until=T, collaborative=False)]
    runner.wait_for_pass()
    devices += [Device(engine, slot, write_until=T, collaborative=False) for slot in range(1, 9)]
    runner.let_go()
    for device in devices:
        assert isinstance(device.read(), Written)
    rows = [sum(segment.num_rows for segment in segments) for segments in runner.passes]
    assert max(rows) == 5
    assert rows.count(5) >= 10  # the budget is used, not only kept


def test_a_segment_larger_than_the_budget_still_runs(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine(max_pass_rows=1)
    device = Device(engine, 0, write_until=1)
    picture = own_picture(np.array([1, 2]))
    assert list(device.read_prefix()) == picture[:1]
    device.draft(picture[1:8], 1)
    verdict = device.read()
    assert isinstance(verdict, Verdict)
    assert verdict.verified_through == 8


def test_sessions_take_turns(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine(max_pass_rows=2)
    runner.hold()
    devices = [Device(engine, 0, write_until=T, collaborative=False)]
    runner.wait_for_pass()
    devices += [Device(engine, slot, write_until=T, collaborative=False) for slot in range(1, 5)]
    runner.let_go()
    for device in devices:
        assert isinstance(device.read(), Written)
    served = dict.fromkeys(range(5), 0)
    for slots in runner.slots():
        for slot in slots:
            served[slot] += 1
        if max(served.values()) < T:
            assert max(served.values()) - min(served.values()) <= 2
    assert set(served.values()) == {T}


def test_a_failing_pass_harms_only_its_sessions(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine()
    picture = own_picture(np.array([1, 2]))
    waiting, unlucky = Device(engine, 0, write_until=1), Device(engine, 1, write_until=1)
    waiting.read_prefix()
    unlucky.read_prefix()
    runner.fails_on = lambda segments: any(segment.slot == 1 for segment in segments)
    unlucky.draft(picture[1:3], 1)
    error = unlucky.read()
    assert isinstance(error, InternalError)
    assert "model pass failed" in str(error)
    waiting.draft(picture[1:5], 1)
    verdict = waiting.read()
    assert isinstance(verdict, Verdict)
    assert verdict.verified_through == 5
    runner.fails_on = lambda _: False
    engine.close(unlucky.id)
    assert list(Device(engine, 1, "next", write_until=2).read_prefix()) == picture[:2]
    assert engine.alive


def test_a_reply_that_breaks_harms_only_its_session(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine()

    def broken(frame: CloudFrame | CiarError) -> None:
        if isinstance(frame, Written):
            raise RuntimeError("nobody listens any more")

    engine.open("broken", 0, broken, make_session("broken", write_until=2))
    assert len(Device(engine, 1, write_until=2).read_prefix()) == 2
    assert engine.alive


def test_a_bad_frame_ends_its_session_alone(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine()
    good, bad = Device(engine, 0, write_until=1), Device(engine, 1, write_until=1)
    good.read_prefix()
    bad.read_prefix()
    engine.submit(bad.id, Draft(5, block([1], 1)))
    assert isinstance(bad.read(), ProtocolError)
    engine.submit(good.id, Finish())
    assert isinstance(good.read(), Summary)


def test_closing_in_the_middle_frees_the_slot(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine()
    runner.hold()
    gone = Device(engine, 0, write_until=T)
    runner.wait_for_pass()
    engine.close(gone.id)
    successor = Device(engine, 0, "successor", write_until=2, condition=(3, 4))
    runner.let_go()
    assert list(successor.read_prefix()) == own_picture(np.array([3, 4]))[:2]
    starts = [segment.start for segments in runner.passes for segment in segments]
    assert starts == [0, 0, 2]  # one pass of the first, then the successor from its own row 0


def test_frames_for_a_closed_session_are_dropped(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine()
    device = Device(engine, 0, write_until=1)
    device.read_prefix()
    engine.close(device.id)
    device.draft([1], 1)
    engine.close(device.id)
    assert len(Device(engine, 1, write_until=1).read_prefix()) == 1
    assert len(runner.passes) == 2


def test_a_session_that_cannot_be_judged_here_is_told_so(start_engine: Callable[..., Engine]) -> None:
    """This engine was given no distances between tokens."""
    engine = start_engine()
    error = Device(engine, 0, acceptance=Lantern(1, 0.1)).read()
    assert isinstance(error, InvalidRequest)
    assert "no distances between tokens" in str(error)
    device = Device(engine, 0, session_id="next", write_until=2)
    assert len(device.read_prefix()) == 2
