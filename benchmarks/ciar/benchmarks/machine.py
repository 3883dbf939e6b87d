"""What the benchmark runs on, and which process runs where."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("ciar", "numpy", "grpcio", "onnxruntime", "torch")


@dataclass(frozen=True)
class Placement:
    """Cores of each process; None: wherever the system puts it."""

    server: frozenset[int] | None
    device: frozenset[int] | None
    relay: frozenset[int] | None

    def describe(self) -> str:
        if self.server is None or self.device is None or self.relay is None:
            return "processes not pinned"
        relay = "a core of its own" if not self.relay & (self.server | self.device) else "either of them"
        server, device = (",".join(map(str, sorted(cores))) for cores in (self.server, self.device))
        return f"server pinned to core {server}, device to core {device}, relays on {relay}"


def place() -> Placement:
    """A core for the server and one for the device, if there are two; relays get the others, or share both."""
    if not hasattr(os, "sched_setaffinity"):
        return Placement(None, None, None)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return Placement(None, None, None)
    device, server, *others = cores
    return Placement(frozenset({server}), frozenset({device}), frozenset(others or cores))


@contextmanager
def on_cores(cores: frozenset[int] | None) -> Iterator[None]:
    """Run this process, all its threads and what it starts, on these cores for the length of the block."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    _move(cores)
    try:
        yield
    finally:
        _move(before)


def _move(cores: frozenset[int] | set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)


def environment() -> dict[str, object]:
    """Machine and versions, in JSON's types."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def cpu_model() -> str:
    """The processor, as the system names it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
