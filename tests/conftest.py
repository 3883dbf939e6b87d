"""Fixtures that more than one folder of tests uses. Heavy imports stay inside: a device's tests need no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.running_cloud import RunningCloud


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a bundle with a tiny random cloud model. Shared by all tests: do not write to it."""
    from tests.support.tiny_bundle import write_tiny_bundle

    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def start_cloud(tiny_bundle: Path) -> Iterator[Callable[..., RunningCloud]]:
    """`start_cloud(**settings)` serves the tiny bundle, any of `Settings` overridden; stopped after the test."""
    running: list[RunningCloud] = []

    def start(**settings: Any) -> RunningCloud:
        running.append(_start(tiny_bundle, settings))
        return running[-1]

    yield start
    for cloud in running:
        cloud.stop()


@pytest.fixture(scope="module")
def cloud(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[RunningCloud]:
    """A server of the tiny bundle, one for each test module; indirect parametrisation gives a dict of settings."""
    running = _start(tiny_bundle, getattr(request, "param", {}))
    yield running
    running.stop()


def _start(bundle: Path, settings: dict[str, Any]) -> RunningCloud:
    import torch

    from ciar.cloud_server.settings import Settings
    from tests.support.running_cloud import RunningCloud

    torch.set_num_threads(1)  # a tiny model gains nothing from threads
    defaults = {"address": "127.0.0.1:0", "bundle": bundle, "drain_s": 2}
    return RunningCloud(Settings(**(defaults | settings)))
