"""The cloud of `ciar bench-scale`, a process of its own: the real server, with passes of a large model beside its own.

    python -m ciar.benchmarks.scale.server --size XL --facts out/facts.json [--bundle FOLDER] [--address HOST:PORT]

Every pass runs twice: through the bundle's trained model, whose logits decide everything, and through a model of
LlamaGen's shape with random weights, whose logits are thrown away. So which guesses hold is a trained pair's, and what
a pass costs is the large model's. Measures a few passes first, writes what it found, and serves.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from ciar.benchmarks.machine import cpu_model
from ciar.benchmarks.scale.facts import Facts
from ciar.benchmarks.scale.model import config_of, lean_runner, pass_bytes, random_transformer
from ciar.benchmarks.scale.sizes import GRID, find_size
from ciar.cloud_server.batch import Segment
from ciar.cloud_server.logs import configure_logging
from ciar.cloud_server.runner import ModelRunner, load_transformer
from ciar.cloud_server.server import CloudServer, serve
from ciar.cloud_server.settings import EMBEDDED_BUNDLE, Settings
from ciar.cloud_server.transformer import TransformerConfig
from ciar.shared.bundle import load_manifest
from ciar.shared.errors import CiarError, InvalidRequest

PASS_ROWS = (1, 2, 4, 8, 16, 32)
"""New tokens of the passes that are measured."""

NUM_PASSES = 3
MAX_SESSIONS = 2
"""One picture at a time, and one whose end is still under way."""

SESSION_TIMEOUT_S = 6 * 3600.0
"""A bound on a hung picture, not a target."""

PROBE_BYTES = 2**28
"""What is summed to measure the memory's bandwidth: more than any cache holds."""


class BesideRunner:
    """A trained model's runner, with the same passes of a large one beside it."""

    def __init__(self, trained: ModelRunner, large: ModelRunner, trained_rows: int, large_rows: int) -> None:
        """trained_rows, large_rows: rows of conditioning of each."""
        self._trained, self._large = trained, large
        self._trained_rows, self._large_rows = trained_rows, large_rows

    def extend(self, segments: Sequence[Segment]) -> list[NDArray[np.float32]]:
        """The trained model's logits, after both have run."""
        self._large.extend([self._enlarged(segment) for segment in segments])
        return self._trained.extend(segments)

    def _enlarged(self, segment: Segment) -> Segment:
        """The same tokens at the same positions, behind the large model's own conditioning."""
        start = 0 if segment.start == 0 else segment.start - self._trained_rows + self._large_rows
        return replace(segment, condition=np.ones(self._large_rows, np.int64), start=start, features=None)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="Serve a bundle, with passes of a model of LlamaGen's shape beside.")
    parser.add_argument("--size", required=True)
    parser.add_argument("--facts", required=True, type=Path, help="file for what was measured")
    parser.add_argument("--bundle", type=Path, default=EMBEDDED_BUNDLE)
    parser.add_argument("--address", default="127.0.0.1:50051")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    try:
        _serve(arguments)
    except (CiarError, OSError) as error:
        sys.exit(f"error: {error}")


def _serve(arguments: argparse.Namespace) -> None:
    size = find_size(arguments.size)
    if load_manifest(arguments.bundle).num_tokens != GRID * GRID:
        raise InvalidRequest(f"bundle: its pictures must have {GRID * GRID} tokens, as the large model's")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidRequest(f"device: {arguments.device} is not available here; use cpu, or a build with CUDA")
    torch.set_num_threads(arguments.threads)
    settings = Settings(
        address=arguments.address,
        bundle=arguments.bundle,
        device=arguments.device,
        threads=arguments.threads,
        max_sessions=MAX_SESSIONS,
        session_timeout_s=SESSION_TIMEOUT_S,
        log_level="warning",
    )
    configure_logging(settings.log_level, settings.log_format)
    trained = load_transformer(settings.bundle)
    config = config_of(size)
    large = _measured_runner(config, settings, arguments.facts)
    runner = BesideRunner(
        ModelRunner(trained, MAX_SESSIONS, settings.threads),
        large,
        trained.config.caption_length,
        config.caption_length,
    )
    serve(CloudServer(settings, runner=runner))


def _measured_runner(config: TransformerConfig, settings: Settings, path: Path) -> ModelRunner:
    """The large runner; what it costs goes into the file."""
    model = random_transformer(config, settings.device)
    num_parameters, num_bytes = sum(p.numel() for p in model.parameters()), pass_bytes(model)
    runner = lean_runner(model, MAX_SESSIONS, settings.threads)
    Facts(
        device=_device_name(settings),
        num_parameters=num_parameters,
        pass_bytes=num_bytes,
        bandwidth_bytes_s=_bandwidth_bytes_s(settings.device),
        pass_s={rows: _pass_s(runner, config, rows) for rows in PASS_ROWS},
    ).save(path)
    return runner


def _device_name(settings: Settings) -> str:
    if settings.device == "cpu":
        return f"{cpu_model()}, {settings.threads} thread{'s' * (settings.threads != 1)}"
    return torch.cuda.get_device_name(settings.device)


def _bandwidth_bytes_s(device: str) -> float:
    source = torch.ones(PROBE_BYTES // 4, device=device)
    return PROBE_BYTES / _median_s(lambda: source.sum().item())


def _pass_s(runner: ModelRunner, config: TransformerConfig, num_rows: int) -> float:
    """Seconds of a guided pass of `num_rows` new tokens, all of them wanted, behind half a picture."""
    first = config.num_tokens // 2
    segment = Segment(
        slot=0,
        guidance=2.0,
        condition=np.ones(config.caption_length, np.int64),
        start=first + config.caption_length,
        tokens=np.zeros(num_rows, np.int64),
        features=None,
        wanted=first + 1 + np.arange(num_rows),
    )
    return _median_s(lambda: runner.extend([segment]))


def _median_s(call: Callable[[], object]) -> float:
    call()
    seconds = []
    for _ in range(NUM_PASSES):
        began = perf_counter()
        call()
        seconds.append(perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
