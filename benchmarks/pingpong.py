"""The bare ping-pong: a bidirectional gRPC stream that carries bytes, and nothing of ours.

`python -m benchmarks.pingpong` is the server, with gRPC's asyncio like the cloud's: every message is answered with as
many bytes as its first two say. `PingPong` is the other end. What a question costs over this is ours; what this costs
is gRPC's and the machine's.

Bare, it is hot: nothing else runs in its process. A server of a model answers with the caches that a pass has left.
`python -m benchmarks.pingpong BYTES` therefore reads so many bytes of memory before each answer, as a pass reads its
weights, and says in it how long that took.
"""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
from time import perf_counter, perf_counter_ns
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

from benchmarks.machine import on_cores
from shared.errors import Unavailable

METHOD = "/benchmarks.PingPong/Bounce"
READY = "bouncing on "
DEADLINE_S = 600.0
SIZE_BYTES = 2
TIME_BYTES = 8


class PingPong:
    """A server process and one open stream to it. A context manager."""

    def __init__(self, pass_bytes: int = 0, cores: frozenset[int] | None = None) -> None:
        """pass_bytes: read between question and answer, 0: none; cores: of the server, None: those of this process."""
        self._pass_bytes, self._cores = pass_bytes, cores

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.pingpong", str(self._pass_bytes)]
        with on_cores(self._cores):
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(READY):
            self._process.kill()
            raise Unavailable("pingpong: its server did not start")
        self._channel = grpc.insecure_channel(line.removeprefix(READY).strip())
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._call = self._channel.stream_stream(METHOD)(iter(self._outbox.get, None), timeout=DEADLINE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._outbox.put(None)
        self._call.cancel()
        self._channel.close()
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def bounce(self, bytes_up: int, bytes_down: int) -> float:
        """Seconds of one round trip of messages of these sizes, without the pass if there is one."""
        if self._pass_bytes:
            bytes_down = max(bytes_down, TIME_BYTES)
        message = bytes_down.to_bytes(SIZE_BYTES, "little") + bytes(max(0, bytes_up - SIZE_BYTES))
        began = perf_counter()
        self._outbox.put(message)
        reply = next(self._call)
        seconds = perf_counter() - began
        assert len(reply) == bytes_down
        return seconds - int.from_bytes(reply[:TIME_BYTES], "little") / 1e9 if self._pass_bytes else seconds


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, pass_bytes: int) -> None:
        self._memory = np.ones(pass_bytes // 4, np.float32)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        bounce = self._bounce_after_pass if self._memory.size else self._bounce
        return grpc.stream_stream_rpc_method_handler(bounce) if details.method == METHOD else None

    async def _bounce(self, _requests: Any, context: grpc.aio.ServicerContext) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(bytes(int.from_bytes(message[:SIZE_BYTES], "little")))

    async def _bounce_after_pass(self, _requests: Any, context: grpc.aio.ServicerContext) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            began_ns = perf_counter_ns()
            self._memory.sum()
            took = (perf_counter_ns() - began_ns).to_bytes(TIME_BYTES, "little")
            await context.write(took + bytes(int.from_bytes(message[:SIZE_BYTES], "little") - TIME_BYTES))


async def _serve(pass_bytes: int) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Handler(pass_bytes),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"{READY}127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
