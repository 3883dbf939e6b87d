"""A cloud that verifies at once: nothing is rejected, nothing waited for, and the real cloud is asked once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciar.benchmarks.accepting import AcceptingTransport
from ciar.device_client import Client, Decision
from ciar.shared.bundle import Manifest
from tests.device_client.fakes import FakeCloud


@pytest.mark.parametrize("mode", ["lossless", "ciar"])
def test_every_draft_is_accepted_and_only_the_opening_is_the_clouds(
    device_folder: Path, manifest: Manifest, tmp_path: Path, mode: str
) -> None:
    cloud = FakeCloud(manifest, {name: (device_folder / name).read_bytes() for name in manifest.files})
    gate = "always" if mode == "ciar" else None
    with Client(transport=AcceptingTransport(cloud), cache_dir=tmp_path) as client:
        first, second = (client.generate("heart", seed=3, mode=mode, gate=gate, prefix_rate=0.0) for _ in range(2))
    assert first.tokens == second.tokens
    assert first.decisions == (Decision.ACCEPTED,) * manifest.num_tokens
    assert first.traffic.num_forks == first.traffic.num_discarded == 0
    assert first.traffic.bytes_up > 0
    assert (len(cloud.opens), len(cloud.drafts)) == (1, 0)
