"""The device's tiny pair with a fake cloud, and hand-made measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciar.benchmarks.measurement import Measurement
from ciar.shared.bundle import Manifest
from tests.device_client.tiny_graphs import write_device_files


@pytest.fixture(scope="session")
def device_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the tiny drafter.onnx and decoder.onnx."""
    return tmp_path_factory.mktemp("device")


@pytest.fixture(scope="session")
def manifest(device_folder: Path) -> Manifest:
    return write_device_files(device_folder)


@pytest.fixture
def measured() -> Callable[..., Measurement]:
    """`measured(method, seconds=…, …)` -> a measurement whose parts add up, any field given by name."""

    def make(method: str = "ciar", **given: Any) -> Measurement:
        seconds = given.get("seconds", 1.0)
        values: dict[str, Any] = {
            "profile": "loopback",
            "method": method,
            "prompt": "red heart",
            "seed": 0,
            "seconds": seconds,
            "preview_s": 0.1 * seconds,
            "network_s": 0.4 * seconds,
            "cloud_s": 0.3 * seconds,
            "drafting_s": 0.2 * seconds,
            "messages_s": 0.04 * seconds,
            "bookkeeping_s": 0.03 * seconds,
            "pixels_s": 0.02 * seconds,
            "setup_s": 0.01 * seconds,
            "cloud_compute_s": 0.5,
            "num_passes": 4,
            "num_requests": 2,
            "num_rows": 9,
            "num_forks": 1,
            "num_discarded": 3,
            "num_resumptions": 0,
            "num_near_ties": 0,
            "num_verified": 1,
            "num_rejections": 1,
            "num_local": 2,
            "bytes_up": 100,
            "bytes_down": 60,
            "tokens": (1, 2, 3, 4),
        }
        return Measurement(**(values | given))

    return make
