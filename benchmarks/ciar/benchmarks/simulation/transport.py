"""A cloud in simulated time, behind the device's transport.

In: frames of the device's own decoding loop. Out: frames of the cloud's own `Session`, when they would have come over a
link with a delay from a machine whose passes take a fixed time and some for each row. Nothing waits: whoever would wait
moves the clock. The device's time passes in `Clock.spend`, which its drafter calls (`TimedDrafter`).

The device is the only one who sends to the cloud, so the cloud can always be run up to the device's present.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciar.cloud_server.batch import PassSession, Segment
from ciar.device_client.drafter import Drafts, Proposals
from ciar.shared.errors import CiarError, TimedOut
from ciar.shared.types import CloudFrame, DeviceFrame, Finish, Limits, Open, Tokens

Reply = Callable[[CloudFrame | CiarError], None]


@dataclass(frozen=True, slots=True)
class Times:
    """What things take, in milliseconds."""

    pass_ms: float
    """A pass without rows."""
    row_ms: float
    """An input row more."""
    one_way_ms: Callable[[], float]
    """From one side to the other; frames of one direction never overtake each other."""
    run_ms: float = 0.06
    """A run of the drafter without rows."""
    drafted_row_ms: float = 0.0075
    wake_ms: float = 0.3
    """From a frame's arrival until a waiting device goes on."""

    @property
    def row_cost(self) -> float:
        """c: what a row costs, in parts of a pass without rows."""
        return self.row_ms / self.pass_ms


@dataclass(slots=True)
class Clock:
    """The device's present, in milliseconds."""

    now_ms: float = 0.0
    busy_ms: float = 0.0
    """Of it, the time that the device worked."""

    def spend(self, ms: float) -> None:
        """The device works."""
        self.now_ms += ms
        self.busy_ms += ms


class TimedDrafter:
    """A drafter whose runs take simulated time."""

    def __init__(self, drafter: Drafts, clock: Clock, times: Times) -> None:
        self._drafter, self._clock, self._times = drafter, clock, times

    def reset(self, condition: Sequence[int]) -> None:
        self._drafter.reset(condition)

    def evaluate(self, tokens: Tokens, start: int, end: int) -> Proposals:
        self._clock.spend(self._times.run_ms + self._times.drafted_row_ms * (end - start))
        return self._drafter.evaluate(tokens, start, end)


@dataclass(order=True, slots=True)
class _Arrival:
    at_ms: float
    number: int
    frame: Any = field(compare=False)


class SimulatedTransport:
    """`Transport` to one simulated cloud."""

    def __init__(
        self,
        extend: Callable[[Sequence[Segment]], list[NDArray[np.float32]]],
        make: Callable[[Open, Reply], PassSession],
        times: Times,
        clock: Clock,
    ) -> None:
        """extend: a runner's; make(request, reply): admits a picture and makes its session."""
        self._parts = extend, make, times, clock

    def generate(self, timeout_s: float) -> SimulatedSession:
        return SimulatedSession(*self._parts)

    def model_info(self, timeout_s: float) -> tuple[str, str, Limits]:
        raise NotImplementedError("a simulated cloud has no model info")

    def artifact(self, name: str, timeout_s: float) -> Iterator[bytes]:
        raise NotImplementedError("a simulated cloud has no files")

    def close(self) -> None:
        pass


class SimulatedSession:
    """One picture's stream, and the engine that serves it alone."""

    def __init__(
        self,
        extend: Callable[[Sequence[Segment]], list[NDArray[np.float32]]],
        make: Callable[[Open, Reply], PassSession],
        times: Times,
        clock: Clock,
    ) -> None:
        self.bytes_up = self.bytes_down = 0
        self._extend, self._make, self._times, self._clock = extend, make, times, clock
        self._session: PassSession | None = None
        self._up: list[_Arrival] = []
        self._down: deque[_Arrival] = deque()
        self._numbers = count()
        self._last_up = self._last_down = 0.0
        self._cloud_ms = 0.0  # the cloud's present

    def send(self, frame: DeviceFrame) -> None:
        self._last_up = max(self._last_up, self._clock.now_ms + self._times.one_way_ms())
        heapq.heappush(self._up, _Arrival(self._last_up, next(self._numbers), frame))

    def receive(self, timeout_s: float) -> CloudFrame | None:
        self._run_cloud(self._clock.now_ms)
        if timeout_s > 0:
            while not self._down and self._run_cloud_once():
                pass
            if not self._down:
                raise TimedOut("simulation: both sides wait for each other")
            if self._down[0].at_ms > self._clock.now_ms:
                self._clock.now_ms = self._down[0].at_ms + self._times.wake_ms
        if not self._down or self._down[0].at_ms > self._clock.now_ms:
            return None
        frame = self._down.popleft().frame
        if isinstance(frame, CiarError):
            raise frame
        result: CloudFrame = frame
        return result

    def close(self) -> None:
        pass

    def _run_cloud(self, until_ms: float) -> None:
        """Everything that the cloud begins before a time."""
        while self._next_start() <= until_ms and self._run_cloud_once():
            pass

    def _next_start(self) -> float:
        if self._session is not None and self._session.has_work:
            return self._cloud_ms
        return max(self._cloud_ms, self._up[0].at_ms) if self._up else float("inf")

    def _run_cloud_once(self) -> bool:
        """Take in what has come, then one pass if there is work. False: there is nothing to do at all."""
        if not (self._session is not None and self._session.has_work):
            if not self._up:
                return False
            self._cloud_ms = max(self._cloud_ms, self._up[0].at_ms)
        while self._up and self._up[0].at_ms <= self._cloud_ms:
            arrival = heapq.heappop(self._up)
            self._take(arrival.frame, int(arrival.at_ms * 1e6))
        if self._session is not None and self._session.has_work:
            self._pass(self._session)
        return True

    def _pass(self, session: PassSession) -> None:
        times = self._times
        segment = session.next_segment(times.row_cost)
        duration = times.pass_ms + times.row_ms * segment.num_rows
        started_ns = int(self._cloud_ms * 1e6)
        self._cloud_ms += duration
        (logits,) = self._extend([segment])
        session.absorb(segment, logits, started_ns, int(duration * 1e6))

    def _take(self, frame: DeviceFrame, arrived_ns: int) -> None:
        try:
            if isinstance(frame, Open):
                self._session = self._make(frame, self._reply)
            elif self._session is not None and not (isinstance(frame, Finish) and self._session.finished):
                self._session.receive(frame, arrived_ns)
        except CiarError as error:
            self._reply(error)

    def _reply(self, frame: CloudFrame | CiarError) -> None:
        self._last_down = max(self._last_down, self._cloud_ms + self._times.one_way_ms())
        self._down.append(_Arrival(self._last_down, next(self._numbers), frame))
