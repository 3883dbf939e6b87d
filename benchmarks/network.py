"""A TCP relay in user space, as a process of its own: what the network between device and cloud does, on one machine.

In: bytes of connections to its port. Out: the same bytes, in order, to the target and back, when the profile's toxics
let them pass. It knows nothing of gRPC. A link first takes a chunk's transmission time, then its propagation delay:

    due = token bucket(arrival, size) + latency ± jitter, never before the chunk in front, never inside a stall

Opening a connection is not delayed (a picture's connection is open already), and neither loss nor TCP's own congestion
window is modelled: both ends see a loss-free loopback. One thread; timers by `select`, whose clock is finer than the
millisecond of asyncio's default selector. By hand: `python -m benchmarks.network --target HOST:PORT --profile 5g`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import selectors
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.profiles import Bandwidth, Latency, Profile, Reset, Stall, Toxic, find_profile
from shared.errors import Unavailable

READY = "relaying on "
READ_BYTES = 65_536
SLICE_BYTES = 1_500
"""A limited link passes on slices of at least this size: about a packet."""
MAX_QUEUED_SLICES = 2_048
"""Of one direction of a connection, before its sender is made to wait."""


class TokenBucket:
    """When bytes have passed a link of limited rate."""

    def __init__(self, rate_bytes_s: float, burst_bytes: int = 0) -> None:
        self._rate_bytes_s = rate_bytes_s
        self._burst_s = burst_bytes / rate_bytes_s
        self._free_at = float("-inf")

    def passed_at(self, num_bytes: int, now: float) -> float:
        """The time, in seconds of the clock of `now`, at which the last of these bytes has passed."""
        start = max(self._free_at, now - self._burst_s)
        self._free_at = start + num_bytes / self._rate_bytes_s
        return max(now, self._free_at)


class Link:
    """One direction of the network, shared by all connections."""

    def __init__(self, toxics: tuple[Toxic, ...], seed: int) -> None:
        self._random = random.Random(seed)
        self._latencies = [toxic for toxic in toxics if isinstance(toxic, Latency)]
        limits = [toxic for toxic in toxics if isinstance(toxic, Bandwidth)]
        self._buckets = [TokenBucket(limit.rate_kbit_s * 125, limit.burst_bytes) for limit in limits]
        slowest = min((limit.rate_kbit_s * 125 for limit in limits), default=float("inf"))
        self.slice_bytes = int(min(READ_BYTES, max(SLICE_BYTES, slowest / 1000)))
        self.stalls = [toxic for toxic in toxics if isinstance(toxic, Stall)]
        self.resets = [toxic for toxic in toxics if isinstance(toxic, Reset)]

    def due(self, num_bytes: int, now: float) -> float:
        """When bytes that arrive now come out at the other end, stalls and order aside."""
        for bucket in self._buckets:
            now = bucket.passed_at(num_bytes, now)
        for toxic in self._latencies:
            jitter_ms = self._random.uniform(-toxic.jitter_ms, toxic.jitter_ms)
            now += max(0.0, toxic.latency_ms + jitter_ms) / 1000
        return now


class _Struck(Exception):
    """The connection is to be reset."""


class _Pipe:
    """One direction of one connection."""

    def __init__(
        self, link: Link, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened: float
    ) -> None:
        """number: of the connection, from 0."""
        self._link, self._reader, self._writer, self._opened = link, reader, writer, opened
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_QUEUED_SLICES)
        struck = [t.after_bytes for t in link.resets if not t.num_connections or number < t.num_connections]
        self._bytes_left = min(struck, default=None)

    async def run(self) -> None:
        """Until the sender ends its side. Raises _Struck, or the sockets' errors."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take())
            group.create_task(self._pass_on())

    async def _take(self) -> None:
        clock, last_due = asyncio.get_running_loop().time, 0.0
        while True:
            data = await self._reader.read(READ_BYTES)
            now, size = clock(), self._link.slice_bytes
            for part in [data[i : i + size] for i in range(0, len(data), size)] or [b""]:
                last_due = max(last_due, self._after_stalls(self._link.due(len(part), now)))
                await self._queue.put((last_due, part))
            if not data:
                return

    def _after_stalls(self, due: float) -> float:
        for stall in self._link.stalls:
            start = self._opened + stall.after_ms / 1000
            end = start + stall.for_ms / 1000
            if start <= due < end:
                due = end
        return due

    async def _pass_on(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, data = await self._queue.get()
            if (pause_s := due - clock()) > 0:
                await asyncio.sleep(pause_s)
            if not data:
                self._writer.write_eof()
                return
            if self._bytes_left is not None:
                data = data[: self._bytes_left]
                self._bytes_left -= len(data)
            self._writer.write(data)
            await self._writer.drain()
            if self._bytes_left == 0:
                raise _Struck


class Relay:
    """Listens, and joins every connection with one to the target."""

    def __init__(self, target: str, profile: Profile, seed: int = 0) -> None:
        """target: HOST:PORT; seed: of the jitter."""
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._up, self._down = Link(profile.up, seed), Link(profile.down, seed + 1)
        self._num_connections = 0
        self.address = ""

    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> asyncio.Server:
        """Begin to listen; `address` is known then."""
        server = await asyncio.start_server(self._join, host, port, limit=READ_BYTES)
        self.address = "{}:{}".format(*server.sockets[0].getsockname()[:2])
        return server

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, opened = self._num_connections, asyncio.get_running_loop().time()
        self._num_connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port, limit=READ_BYTES)
        except OSError:
            _reset(writer)
            return
        up = _Pipe(self._up, number, reader, far_writer, opened)
        down = _Pipe(self._down, number, far_reader, writer, opened)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(up.run())
                group.create_task(down.run())
        except* (_Struck, OSError):
            _reset(writer)
            _reset(far_writer)
        finally:
            writer.close()
            far_writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: the peer reads an error, not an end."""
    with contextlib.suppress(OSError):
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class RelayProcess:
    """A relay as a child process. A context manager; `address` is HOST:PORT."""

    def __init__(self, target: str, profile: Profile, seed: int = 0) -> None:
        self._command = [sys.executable, "-m", "benchmarks.network", "--target", target, "--seed", str(seed)]
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
