"""The tiny pair, and clients of a fake cloud."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciar.device_client import Client, RetryPolicy
from ciar.shared.bundle import Manifest
from tests.device_client.fakes import FakeCloud
from tests.device_client.tiny_graphs import write_device_files

QUICK = RetryPolicy(first_pause_s=0.001, longest_pause_s=0.002, give_up_after_s=0.3)


@pytest.fixture(scope="session")
def device_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the tiny drafter.onnx and decoder.onnx."""
    return tmp_path_factory.mktemp("device")


@pytest.fixture(scope="session")
def manifest(device_folder: Path) -> Manifest:
    return write_device_files(device_folder)


@pytest.fixture(scope="session")
def files(device_folder: Path, manifest: Manifest) -> dict[str, bytes]:
    return {name: (device_folder / name).read_bytes() for name in manifest.files}


@pytest.fixture
def make_client(manifest: Manifest, files: dict[str, bytes], tmp_path: Path) -> Callable[..., tuple[Client, FakeCloud]]:
    """`make_client(**settings of FakeCloud)` -> a client and its cloud."""

    def make(**settings: Any) -> tuple[Client, FakeCloud]:
        cloud = FakeCloud(manifest, files, **settings)
        return Client(transport=cloud, cache_dir=tmp_path / "cache", retry=QUICK), cloud

    return make
