"""A cloud server as a process of its own that a test can kill and start again at the same address."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

COMMAND = ("ciar.cloud_server", "--threads", "1")


class ServerProcess:
    """`python -m ciar.cloud_server` at a fixed loopback port, one thread a pass."""

    def __init__(self, *arguments: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start and wait until it serves."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "ciar.cloud_server",
                "--address",
                self.address,
                "--threads",
                "1",
                *self._arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=REPOSITORY,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.strip() == f"serving on {self.address}", line

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(60)
        finally:
            assert process.stdout is not None
            process.stdout.close()
