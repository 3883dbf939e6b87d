"""A TCP relay in user space, as a process of its own: what the network between device and cloud does, on one machine.

In: bytes of connections to its port. Out: the same bytes, in order, to the target and back, when the profile's toxics
let them pass. It knows nothing of gRPC. A link first takes a chunk's transmission time, then its propagation delay:

    due = token bucket(arrival, size) + latency ± jitter, never before the chunk in front, never inside a stall

Opening a connection is not delayed (a picture's connection is open already), and neither loss nor TCP's own congestion
window is modelled: both ends see a loss-free loopback. One thread; timers by `select`, whose clock is finer than the
millisecond of asyncio's default selector. By hand: `python -m ciar.benchmarks.network --target HOST:PORT --profile 5g`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import selectors
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from ciar.benchmarks.link import Link
from ciar.benchmarks.profiles import Profile, find_profile
from ciar.shared.errors import Unavailable

READY = "relaying on "
MAX_QUEUED_BYTES = 4 * 2**20
"""Of one direction of a connection, before its sender is made to wait."""


class _End(asyncio.Protocol):
    """One socket of a joined connection: what it receives goes over its link to the other end.

    One timer and no tasks, so that a round trip costs the machine as little as may be.
    """

    def __init__(self, link: Link, number: int) -> None:
        """number: of the connection, from 0."""
        self._link = link
        struck = [t.after_bytes for t in link.resets if not t.num_connections or number < t.num_connections]
        self._bytes_left = min(struck, default=None)
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.time()
        self._queue: deque[tuple[float, bytes]] = deque()  # (due, slice); an empty slice is the end
        self._queued_bytes = 0
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_full = False  # this socket takes no more for now
        self._has_ended = False  # the end of what it receives has been passed on
        self._other: _End | None = None
        self.transport: asyncio.Transport

    def join(self, other: _End) -> None:
        """Pass everything on to `other` from now on."""
        self._other = other
        self._deliver()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        size, now = self._link.slice_bytes, self._loop.time()
        for start in range(0, len(data), size):
            part = data[start : start + size]
            self._enqueue(part, self._link.due(len(part), now))
        if self._queued_bytes > MAX_QUEUED_BYTES:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._enqueue(b"", self._link.due(0, self._loop.time()))
        return True  # the other direction stays open

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        other = self._other
        if other is not None and not (self._has_ended and other._has_ended):
            other.reset()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._other is not None:
            self._other._deliver()

    def reset(self) -> None:
        """Close with RST: the peer reads an error, not an end."""
        if not self.transport.is_closing():
            with contextlib.suppress(OSError):
                connection: socket.socket = self.transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _enqueue(self, part: bytes, due: float) -> None:
        for stall in self._link.stalls:
            start = self._opened + stall.after_ms / 1000
            end = start + stall.for_ms / 1000
            if start <= due < end:
                due = end
        self._last_due = max(self._last_due, due)
        self._queue.append((self._last_due, part))
        self._queued_bytes += len(part)
        if self._timer is None:
            self._deliver()

    def _deliver(self) -> None:
        """Pass on what is due, and come back when the next is."""
        other, self._timer = self._other, None
        while self._queue and other is not None and not other._is_full and not other.transport.is_closing():
            due, part = self._queue[0]
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self._deliver)
                break
            self._queue.popleft()
            self._queued_bytes -= len(part)
            self._pass_on(part, other)
        if self._queued_bytes <= MAX_QUEUED_BYTES // 2:
            self.transport.resume_reading()

    def _pass_on(self, part: bytes, other: _End) -> None:
        if not part:
            self._has_ended = True
            other.transport.write_eof()
            if other._has_ended:
                self.transport.close()
                other.transport.close()
            return
        if self._bytes_left is not None:
            part = part[: self._bytes_left]
            self._bytes_left -= len(part)
        other.transport.write(part)
        if self._bytes_left == 0:
            self.reset()
            other.reset()


class Relay:
    """Listens, and joins every connection with one to the target."""

    def __init__(self, target: str, profile: Profile, seed: int = 0) -> None:
        """target: HOST:PORT; seed: of the jitter."""
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._up, self._down = Link(profile.up, seed), Link(profile.down, seed + 1)
        self._num_connections = 0
        self._joining: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected
        self.address = ""

    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> asyncio.Server:
        """Begin to listen; `address` is known then."""
        server = await asyncio.get_running_loop().create_server(self._accept, host, port)
        self.address = "{}:{}".format(*server.sockets[0].getsockname()[:2])
        return server

    def _accept(self) -> asyncio.Protocol:
        number, self._num_connections = self._num_connections, self._num_connections + 1
        near = _End(self._up, number)
        task = asyncio.get_running_loop().create_task(self._join(near, number))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)
        return near

    async def _join(self, near: _End, number: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, far = await loop.create_connection(lambda: _End(self._down, number), self._host, self._port)
        except OSError:
            near.reset()
            return
        far.join(near)
        near.join(far)
        if near.transport.is_closing():
            far.reset()


class RelayProcess:
    """A relay as a child process. A context manager; `address` is HOST:PORT."""

    def __init__(self, target: str, profile: Profile, seed: int = 0) -> None:
        self._command = [sys.executable, "-P", "-m", "ciar.benchmarks.network", "--target", target, "--seed", str(seed)]
        self._command += ["--profile", profile.model_dump_json()]
        self._name = profile.name
        self.address = ""

    def __enter__(self) -> Self:
        """Raises Unavailable if it does not start."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(READY):
            self.__exit__(None, None, None)
            raise Unavailable(f"network: the relay of profile {self._name!r} did not start")
        self.address = line.removeprefix(READY).strip()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends with its standard input; by force if it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


async def _run(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.listen.rpartition(":")
    relay = Relay(arguments.target, find_profile(arguments.profile), arguments.seed)
    server = await relay.serve(host, int(port))  # kept: a server that nobody holds is collected
    print(f"{READY}{relay.address}", flush=True)
    over, loop = asyncio.Event(), asyncio.get_running_loop()

    def watch() -> None:  # whoever started this holds our standard input open for as long as it lives
        while sys.stdin.buffer.read(1024):
            pass
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=watch, daemon=True).start()
    await over.wait()
    server.close()


def main() -> None:
    """Relay until standard input ends."""
    parser = argparse.ArgumentParser(
        description="Relay TCP connections as a network profile would; ends with its stdin."
    )
    parser.add_argument("--target", required=True, help="HOST:PORT to pass connections on to")
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT; port 0 takes a free one")
    parser.add_argument("--profile", required=True, help="name, or a profile as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the jitter")
    arguments = parser.parse_args()
    with (
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner,
    ):
        runner.run(_run(arguments))


if __name__ == "__main__":
    main()
