"""A transport that keeps account: how long the device waited, and how much of that the cloud was at work.

In: any `Transport`. Out: the same, with a `Waits` of what has passed since the last `take`. Every wait that ends in a
frame is split by the frame's own cost: at most its forward and queue time was the cloud's, the rest is the network (and
gRPC). A frame's cost lies wholly before its arrival, so a wait shorter than its cost counts as cloud alone: where
drafting and answers overlap, the network's part is a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

from ciar.device_client.transport import Session, Transport
from ciar.shared.types import CloudFrame, DeviceFrame, Limits, Verdict


@dataclass(slots=True)
class Waits:
    """Seconds, added up."""

    network_s: float = 0.0
    """Blocked, and not because the cloud computed."""
    cloud_s: float = 0.0
    """Blocked while the cloud computed, or had the frame in its queue."""
    messages_s: float = 0.0
    """Encoding and queueing frames, and looking for frames without waiting."""
    stream_s: float = 0.0
    """From the opening of a stream to its end, waits and all."""
    num_waits: int = 0

    def add(self, seconds: float, frame: CloudFrame | None) -> None:
        """A wait that ended in `frame`; None: in nothing."""
        cost_s = (frame.cost.forward_ns + frame.cost.queue_ns) / 1e9 if isinstance(frame, Verdict) else 0.0
        cloud_s = min(seconds, cost_s)
        self.cloud_s += cloud_s
        self.network_s += seconds - cloud_s
        self.num_waits += 1


class TimedTransport:
    """`Transport` around another. For one picture at a time."""

    def __init__(self, transport: Transport, clock: Callable[[], float] = perf_counter) -> None:
        self._transport = transport
        self._clock = clock
        self._waits = Waits()

    def take(self) -> Waits:
        """What has been added up since the last call."""
        waits, self._waits = self._waits, Waits()
        return waits

    def model_info(self, timeout_s: float) -> tuple[str, str, Limits]:
        return self._transport.model_info(timeout_s)

    def artifact(self, name: str, timeout_s: float) -> Iterator[bytes]:
        return self._transport.artifact(name, timeout_s)

    def generate(self, timeout_s: float) -> Session:
        opened = self._clock()
        return _TimedSession(self._transport.generate(timeout_s), self._waits, self._clock, opened)

    def close(self) -> None:
        self._transport.close()


class _TimedSession:
    """`Session` around another."""

    def __init__(self, session: Session, waits: Waits, clock: Callable[[], float], opened: float) -> None:
        self.bytes_up = self.bytes_down = 0
        self._session, self._waits, self._clock = session, waits, clock
        self._opened: float | None = opened
        waits.messages_s += clock() - opened

    def send(self, frame: DeviceFrame) -> None:
        began = self._clock()
        self._session.send(frame)
        self.bytes_up = self._session.bytes_up
        self._waits.messages_s += self._clock() - began

    def receive(self, timeout_s: float) -> CloudFrame | None:
        began, frame = self._clock(), None
        try:
            frame = self._session.receive(timeout_s)
        finally:
            self.bytes_down = self._session.bytes_down
            seconds = self._clock() - began
            if timeout_s > 0:
                self._waits.add(seconds, frame)
            else:
                self._waits.messages_s += seconds
        return frame

    def close(self) -> None:
        began = self._clock()
        self._session.close()
        ended = self._clock()
        self._waits.messages_s += ended - began
        if self._opened is not None:
            self._waits.stream_s += ended - self._opened
            self._opened = None
