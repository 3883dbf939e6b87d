"""Records a trace: pictures that a real pair draws, over real processes, by the methods that ask.

In: methods, prompts, a bundle. Out: a trace. The pictures are those that `ciar bench` measures: the pair's own
settings, the same gates with the same calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.commands import describe
from benchmarks.machine import Placement
from benchmarks.methods import Method, Setting
from benchmarks.scale.replay import ASKING
from benchmarks.scale.trace import Record, Trace
from benchmarks.stage import TIMEOUT_S, Stage
from device_client import Client, LocalServer

SEED = 0


def record(
    methods: Mapping[str, Method],
    prompts: Sequence[str],
    calibration: Sequence[str],
    bundle: Path | None,
    show: Callable[[str, int], None] = lambda what, num_done: None,
) -> Trace:
    """A trace of every prompt by every method that asks.

    calibration: prompts for the gates' thresholds; bundle: folder of the pair, None for the embedded one; show: called
    with what begins, and how many pictures are done. Raises what `Client.generate` raises.
    """
    asking = {name: method for name, method in methods.items() if method.mode in ASKING}
    with (
        LocalServer(bundle, arguments=("--threads", "1")) as server,
        Stage(server.address, Placement(None, None, None), ()) as stage,
        Client(server.address) as client,
    ):
        manifest = stage.info().manifest
        setting = Setting(manifest, manifest.defaults.ask_share, stage.calibrate(asking, calibration))
        records: list[Record] = []
        for prompt in prompts:
            for name, method in asking.items():
                show(f"recording: {name}", len(records))
                result = method.draw(client, prompt, SEED, setting, timeout_s=TIMEOUT_S)
                records.append(Record.of(name, prompt, result.decisions))
    pair = describe(manifest)
    return Trace(
        pair=f"{pair['name']} {pair['version']}, digest {pair['digest']}",
        seed=SEED,
        prefix_rate=manifest.defaults.prefix_rate,
        grid_height=manifest.grid_height,
        grid_width=manifest.grid_width,
        records=tuple(records),
    )
