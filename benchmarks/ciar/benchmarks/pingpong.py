"""The bare ping-pong: a bidirectional gRPC stream that carries bytes, and nothing of ours.

`python -m ciar.benchmarks.pingpong` is the server, with gRPC's asyncio like the cloud's: every message is answered with
as many bytes as its first two say. `PingPong` is the other end. What a question costs over this is ours; what this
costs is gRPC's and the machine's.
"""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import grpc

from ciar.shared.errors import Unavailable

METHOD = "/benchmarks.PingPong/Bounce"
READY = "bouncing on "
DEADLINE_S = 600.0
SIZE_BYTES = 2


class PingPong:
    """A server process and one open stream to it. A context manager."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-P", "-m", "ciar.benchmarks.pingpong"]
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
        """Seconds of one round trip of messages of these sizes."""
        message = bytes_down.to_bytes(SIZE_BYTES, "little") + bytes(max(0, bytes_up - SIZE_BYTES))
        began = perf_counter()
        self._outbox.put(message)
        reply = next(self._call)
        seconds = perf_counter() - began
        assert len(reply) == bytes_down
        return seconds


async def _bounce(_requests: Any, context: grpc.aio.ServicerContext) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(bytes(int.from_bytes(message[:SIZE_BYTES], "little")))


class _Handler(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.stream_stream_rpc_method_handler(_bounce) if details.method == METHOD else None


async def _serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"{READY}127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
