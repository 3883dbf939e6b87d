"""A cloud that says yes: nothing is corrected, nothing waited for, and the real cloud is asked once for an opening."""

from __future__ import annotations

from pathlib import Path

from ciar.benchmarks.accepting import AcceptingTransport
from ciar.device_client import Client, Decision
from ciar.shared.bundle import Manifest
from tests.device_client.fakes import FakeCloud


def test_every_question_is_confirmed_and_only_the_opening_is_the_clouds(
    device_folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    cloud = FakeCloud(manifest, {name: (device_folder / name).read_bytes() for name in manifest.files})
    num_tokens, num_prefix = manifest.num_tokens, manifest.num_tokens // 4
    with Client(transport=AcceptingTransport(cloud), cache_dir=tmp_path) as client:
        first, second = (client.generate("heart", seed=3, mode="lossless", prefix_rate=0.25) for _ in range(2))
        own = client.generate("heart", seed=3, mode="cloud")
    assert first.tokens == second.tokens
    assert first.tokens[:num_prefix] == own.tokens[:num_prefix]
    assert first.decisions == (Decision.PREFIX,) * num_prefix + (Decision.CONFIRMED,) * (num_tokens - num_prefix)
    assert first.traffic.num_corrections == first.traffic.num_discarded == 0
    assert first.traffic.bytes_up > 0
    assert (len(cloud.opens), len(cloud.drafts)) == (1, 0)
