"""The cloud of a replay, a process of its own: the real server around random weights and a trace's verdicts.

    python -m ciar.benchmarks.scale.server --size XL --trace out/scale/trace.json --bundle FOLDER [--address HOST:PORT]

Builds the pair into the folder, measures a few passes, writes what it found beside it, and serves. Engine, runner,
contract and service are the product's; replaced are the weights and where a session's acceptance rule comes from.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from ciar.benchmarks.machine import cpu_model
from ciar.benchmarks.scale.facts import Facts
from ciar.benchmarks.scale.pair import Shape, lean_runner, pass_bytes, random_transformer, shape_of, write_folder
from ciar.benchmarks.scale.replay import replaying
from ciar.benchmarks.scale.sizes import find_size
from ciar.benchmarks.scale.trace import Trace
from ciar.cloud_server.batch import Segment
from ciar.cloud_server.logs import configure_logging
from ciar.cloud_server.runner import ModelRunner
from ciar.cloud_server.server import CloudServer, serve
from ciar.cloud_server.session import own_rule
from ciar.cloud_server.settings import Settings
from ciar.cloud_server.transformer import TransformerConfig
from ciar.shared.errors import CiarError, InvalidRequest

PASS_ROWS = (1, 8, 32)
"""New tokens of the passes that are measured."""

NUM_PASSES = 3
MAX_SESSIONS = 2
"""One picture at a time, and one whose end is still under way."""

SESSION_TIMEOUT_S = 6 * 3600.0
"""A bound on a hung picture, not a target."""

MAX_MESSAGE_BYTES = 2**24
"""A block of drafts with the device's law of each, for rules that ask for them: 32 KB a token at V = 16 384."""

PROBE_BYTES = 2**28
"""What is summed to measure the memory's bandwidth: more than any cache holds."""


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="Serve a model of LlamaGen's shape that answers as a trace says.")
    parser.add_argument("--size", required=True)
    parser.add_argument("--trace", required=True, type=Path)
    parser.add_argument("--bundle", required=True, type=Path, help="folder to build the pair in")
    parser.add_argument("--address", default="127.0.0.1:50051")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    try:
        _serve(arguments)
    except (CiarError, OSError) as error:
        sys.exit(f"error: {error}")


def _serve(arguments: argparse.Namespace) -> None:
    shape = shape_of(find_size(arguments.size))
    trace = Trace.load(arguments.trace)
    trace.require_grid(shape.cloud.grid_height, shape.cloud.grid_width)
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
        max_message_bytes=MAX_MESSAGE_BYTES,
        log_level="warning",
    )
    configure_logging(settings.log_level, settings.log_format)
    write_folder(settings.bundle, shape, trace.prompts, trace.prefix_rate)
    runner = _measured_runner(shape, settings)
    serve(CloudServer(settings, runner=runner, rule_of=replaying(trace, partial(own_rule, nearest=runner.nearest))))


def _measured_runner(shape: Shape, settings: Settings) -> ModelRunner:
    """The runner; what it costs goes into the folder."""
    model = random_transformer(shape.cloud, settings.device)
    num_parameters, num_bytes = sum(p.numel() for p in model.parameters()), pass_bytes(model)
    runner = lean_runner(model, MAX_SESSIONS, settings.threads)
    Facts(
        device=_device_name(settings),
        num_parameters=num_parameters,
        pass_bytes=num_bytes,
        bandwidth_bytes_s=_bandwidth_bytes_s(settings.device),
        pass_s={rows: _pass_s(runner, shape.cloud, rows) for rows in PASS_ROWS},
    ).save(settings.bundle)
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
