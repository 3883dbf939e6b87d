"""A server of one's own: starts `python -m ciar.cloud_server` as a child, for demos and for pictures without a server.

It only starts the program; device and cloud never import each other.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import grpc

from ciar.shared.errors import InternalError, InvalidRequest, Unavailable

_READY = "serving on "
_TAIL_CHARACTERS = 800
_SERVING = b"\x08\x01"
"""grpc.health.v1.HealthCheckResponse with status SERVING, serialized: the device needs no more of that protocol."""


class LocalServer:
    """A server process on a free port of this machine. A context manager; `address` is HOST:PORT."""

    def __init__(
        self,
        bundle: Path | str | None = None,
        *,
        arguments: tuple[str, ...] = (),
        start_timeout_s: float = 120.0,
        module: str = "ciar.cloud_server",
    ) -> None:
        """bundle: folder of the pair (default: the server's own); arguments: more of the server's flags.

        module: what is run, if it is another program with the same flags that prints the same line when it serves.
        """
        self._command = [sys.executable, "-P", "-m", module, "--address", "127.0.0.1:0", *arguments]
        if bundle is not None:
            self._command += ["--bundle", str(bundle)]
        self._start_timeout_s = start_timeout_s
        self._address = ""
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT, once started."""
        return self._address

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises InvalidRequest if the server's packages are not installed, Unavailable with the end of its log if it
        stops, or does not serve in time.
        """
        if any(importlib.util.find_spec(name) is None for name in ("ciar.cloud_server", "torch")):
            raise InvalidRequest("server: none given and none installed; give --server, or pip install ciar-cloud")
        deadline = time.monotonic() + self._start_timeout_s
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        try:
            self._address = self._read_address(self._process, deadline)
            self._require_health(deadline)
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ask it to end, and end it if it does not."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _read_address(self, process: subprocess.Popen[str], deadline: float) -> str:
        """The address from the server's line; a thread reads on, so that the pipe never fills."""
        found: list[str] = []
        settled = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    if line.startswith(_READY) and not found:
                        found.append(line.removeprefix(_READY).strip())
                        settled.set()
            settled.set()

        threading.Thread(target=read, name="ciar-server-stdout", daemon=True).start()
        said_all = settled.wait(max(0.0, deadline - time.monotonic()))
        if found:
            return found[0]
        if said_all:
            process.wait(max(1.0, deadline - time.monotonic()))  # it has closed its output: it is ending
        what = "did not get ready in time" if process.poll() is None else f"stopped with code {process.returncode}"
        raise Unavailable(f"server: the local one {what}; the end of its log: {self._tail()}")

    def _require_health(self, deadline: float) -> None:
        with grpc.insecure_channel(self._address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check", _identity, _identity)
            try:
                reply = check(b"", timeout=max(0.1, deadline - time.monotonic()), wait_for_ready=True)
            except grpc.RpcError as exc:
                raise Unavailable(f"server: the local one has no health; its log: {self._tail()}") from exc
        if reply != _SERVING:
            raise InternalError(f"server: the local one says that it is not serving; its log: {self._tail()}")

    def _tail(self) -> str:
        assert self._log is not None
        self._log.flush()
        self._log.seek(0)
        return self._log.read()[-_TAIL_CHARACTERS:].strip() or "(empty)"


def _identity(data: bytes) -> bytes:
    return data
