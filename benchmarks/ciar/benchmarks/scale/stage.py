"""The stage of `ciar bench-scale`: the benchmark's own processes and relays, around a server with a large model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ciar.benchmarks.machine import on_cores, place
from ciar.benchmarks.profiles import Profile
from ciar.benchmarks.scale.facts import Facts
from ciar.benchmarks.stage import Stage
from ciar.device_client import LocalServer, Mode

START_TIMEOUT_S = 1800.0
"""Gigabytes of noise are drawn and copied before the server serves."""

TIMEOUT_S = 6 * 3600.0
"""For one picture: a bound on a hung process, not a target."""


@contextmanager
def open_stage(
    size: str, device: str, bundle: Path | None, profiles: Sequence[Profile]
) -> Iterator[tuple[Stage, Facts]]:
    """A server of the bundle with passes of a large model beside, and clients through each profile.

    Server and device are pinned to a core each where there are two. Raises Unavailable with the end of the server's log
    if it does not start.
    """
    placement = place()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ciar-scale-")))
        facts = scratch / "facts.json"
        server = LocalServer(
            bundle,
            arguments=("--size", size, "--device", device, "--facts", str(facts), "--threads", "1"),
            start_timeout_s=START_TIMEOUT_S,
            module="ciar.benchmarks.scale.server",
        )
        with on_cores(placement.server):
            stack.enter_context(server)
        stack.enter_context(on_cores(placement.device))
        stage = Stage(
            server.address,
            placement,
            profiles,
            timeout_s=TIMEOUT_S,
            warming={"mode": Mode.DEVICE, "prefix_rate": 0.0},  # a picture without a pass of the cloud
        )
        yield stack.enter_context(stage), Facts.load(facts)
