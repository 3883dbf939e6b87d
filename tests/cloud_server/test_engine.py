"""The engine: everything that waits goes into one pass, in turn, and one session's fault stays its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ciar.cloud_server.batch import Segment
from ciar.cloud_server.engine import Engine, SessionFactory
from ciar.cloud_server.session import Reply, Session
from ciar.shared.errors import CiarError, InternalError, ProtocolError
from ciar.shared.types import CloudFrame, Finish, Opened, Summary, Verdict, Verify
from tests.support.fake_runner import FakeRunner, T, admitted, draft, make_session, own_picture

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


def factory(session_id: str, **fields: Any) -> SessionFactory:
    def make(slot: int, reply: Reply) -> Session:
        return make_session(admitted(session_id, **fields), reply, slot=slot)

    return make


class Device:
    """What one session's device sees."""

    def __init__(self, engine: Engine, slot: int, session_id: str | None = None, **fields: Any) -> None:
        self.engine, self.id = engine, session_id or f"session {slot}"
        self._frames: queue.SimpleQueue[CloudFrame | CiarError] = queue.SimpleQueue()
        engine.open(self.id, slot, self._frames.put, factory(self.id, **fields))

    def read(self) -> CloudFrame | CiarError:
        return self._frames.get(timeout=DEADLINE_S)

    def read_tokens(self, count: int) -> list[int]:
        """So many verified tokens, behind Opened if it comes."""
        tokens: list[int] = []
        while len(tokens) < count:
            frame = self.read()
            assert isinstance(frame, Opened | Verdict), frame
            if isinstance(frame, Verdict):
                tokens += frame.tokens[: frame.num_verified]
        return tokens

    def draft(self, tokens: list[int], start: int, seq: int = 1) -> None:
        self.engine.submit(self.id, draft(seq, start, tokens))


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
    first = Device(engine, 0, num_prefix_tokens=2, max_window=1)
    runner.wait_for_pass()
    others = [Device(engine, slot, num_prefix_tokens=2, max_window=1, condition=(slot, 9)) for slot in (1, 2, 3)]
    runner.let_go()
    for device in (first, *others):
        device.read_tokens(2)
    assert runner.slots()[:3] == [{0}, {0, 1, 2, 3}, {1, 2, 3}]


def test_drafts_of_many_sessions_and_a_prefill_share_a_pass(
    runner: GatedRunner, start_engine: Callable[..., Engine]
) -> None:
    engine = start_engine()
    devices = [Device(engine, slot, num_prefix_tokens=1, condition=(slot, slot)) for slot in range(3)]
    pictures = [own_picture(np.array([slot, slot])) for slot in range(3)]
    for device, picture in zip(devices, pictures, strict=True):
        assert device.read_tokens(1) == picture[:1]
    runner.hold()
    devices[0].draft(pictures[0][1:4], 1)
    runner.wait_for_pass()
    num_passes = len(runner.passes)
    devices[1].draft(pictures[1][1:3], 1)
    devices[2].draft(pictures[2][1:3], 1)
    newcomer = Device(engine, 3, num_prefix_tokens=1)
    runner.let_go()
    newcomer.read_tokens(1)
    for device, picture, count in zip(devices, pictures, (3, 2, 2), strict=True):
        assert device.read_tokens(count) == picture[1 : 1 + count]
    assert {1, 2, 3} <= runner.slots()[num_passes + 1]


def test_a_pass_keeps_to_its_row_budget(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine(max_pass_rows=5)
    runner.hold()
    devices = [Device(engine, 0, verify=Verify.ALL, max_window=1)]
    runner.wait_for_pass()
    devices += [Device(engine, slot, verify=Verify.ALL, max_window=1) for slot in range(1, 9)]
    runner.let_go()
    for device in devices:
        device.read_tokens(T)
    rows = [sum(segment.num_rows for segment in segments) for segments in runner.passes]
    assert max(rows) == 5
    assert rows.count(5) >= 10  # the budget is used, not only kept


def test_a_segment_larger_than_the_budget_still_runs(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine(max_pass_rows=1)
    device = Device(engine, 0, num_prefix_tokens=1)
    picture = own_picture(np.array([1, 2]))
    assert device.read_tokens(1) == picture[:1]
    device.draft(picture[1:8], 1)
    assert device.read_tokens(7) == picture[1:8]


def test_sessions_take_turns(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine(max_pass_rows=2)
    runner.hold()
    devices = [Device(engine, 0, verify=Verify.ALL, max_window=1)]
    runner.wait_for_pass()
    devices += [Device(engine, slot, verify=Verify.ALL, max_window=1) for slot in range(1, 5)]
    runner.let_go()
    for device in devices:
        device.read_tokens(T)
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
    waiting, unlucky = Device(engine, 0, num_prefix_tokens=1), Device(engine, 1, num_prefix_tokens=1)
    waiting.read_tokens(1)
    unlucky.read_tokens(1)
    runner.fails_on = lambda segments: any(segment.slot == 1 for segment in segments)
    unlucky.draft(picture[1:3], 1)
    error = unlucky.read()
    assert isinstance(error, InternalError)
    assert "model pass failed" in str(error)
    waiting.draft(picture[1:5], 1)
    assert waiting.read_tokens(4) == picture[1:5]
    runner.fails_on = lambda _: False
    engine.close(unlucky.id)
    assert Device(engine, 1, "next", num_prefix_tokens=2).read_tokens(2) == picture[:2]
    assert engine.alive


def test_a_reply_that_breaks_harms_only_its_session(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine()

    def broken(frame: CloudFrame | CiarError) -> None:
        if isinstance(frame, Verdict):
            raise RuntimeError("nobody listens any more")

    engine.open("broken", 0, broken, factory("broken", num_prefix_tokens=2))
    assert len(Device(engine, 1, num_prefix_tokens=2).read_tokens(2)) == 2
    assert engine.alive


def test_a_bad_frame_ends_its_session_alone(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine()
    good, bad = Device(engine, 0, num_prefix_tokens=1), Device(engine, 1, num_prefix_tokens=1)
    good.read_tokens(1)
    bad.read_tokens(1)
    engine.submit(bad.id, draft(5, 1, [1]))
    assert isinstance(bad.read(), ProtocolError)
    engine.submit(good.id, Finish())
    assert isinstance(good.read(), Summary)


def test_closing_in_the_middle_frees_the_slot(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine()
    runner.hold()
    gone = Device(engine, 0, num_prefix_tokens=T, max_window=1)
    runner.wait_for_pass()
    engine.close(gone.id)
    successor = Device(engine, 0, "successor", num_prefix_tokens=2, max_window=1, condition=(3, 4))
    runner.let_go()
    assert successor.read_tokens(2) == own_picture(np.array([3, 4]))[:2]
    starts = [segment.start for segments in runner.passes for segment in segments]
    assert starts == [0, 0, 2]  # one pass of the first, then the successor from its own row 0


def test_frames_for_a_closed_session_are_dropped(runner: GatedRunner, start_engine: Callable[..., Engine]) -> None:
    engine = start_engine()
    device = Device(engine, 0, num_prefix_tokens=1)
    device.read_tokens(1)
    engine.close(device.id)
    device.draft([1], 1)
    engine.close(device.id)
    assert len(Device(engine, 1, num_prefix_tokens=1).read_tokens(1)) == 1
    assert len(runner.passes) == 2
