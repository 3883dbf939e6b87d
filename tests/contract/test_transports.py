"""One suite on two transports: in process and over gRPC, a loop commits the same tokens and meets the same errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ciar.device_client.carried import CarriedTrack
from ciar.device_client.drafter import Proposal
from ciar.device_client.gates import AlwaysAsk, FixedThreshold, Gate, NeverAsk, Scores, bounded
from ciar.device_client.loop import Loop, Request
from ciar.device_client.result import Decision
from ciar.device_client.track import Track
from ciar.device_client.transport import GrpcTransport, Transport
from ciar.device_client.tree import TreeLoop
from ciar.device_client.waiting import Deadline, RetryPolicy
from ciar.shared.bundle import Manifest, load_manifest
from ciar.shared.errors import CiarError, InvalidRequest, PairMismatch
from ciar.shared.types import COUPLED, Acceptance, Classic, Lantern, Limits, Sampling, Tokens
from tests.support.in_process import InProcessTransport
from tests.support.running_cloud import RunningCloud

PROMPT = "red filled heart on cream"


class TableDrafter:
    """A drafter without a model: law, scores and feature are a pure function of the last two tokens and position."""

    def __init__(self, manifest: Manifest) -> None:
        self._vocab_size, self._feature_dim = manifest.vocab_size, manifest.feature_dim

    def reset(self, condition: Sequence[int]) -> None:
        self._condition = tuple(condition)

    def read(self, tokens: Tokens, start: int, end: int) -> None:
        pass

    def step(self, tokens: Tokens, position: int) -> Proposal:
        rng = np.random.default_rng([position, *tokens[max(0, position - 2) : position].tolist(), *self._condition])
        center = (2 * rng.standard_normal(self._vocab_size)).astype(np.float32)
        feature = rng.standard_normal(self._feature_dim).astype(np.float32)
        return Proposal(center, Scores(1.0, 1.0, rng.uniform()), feature)


@pytest.fixture(scope="module", params=["in process", "grpc"])
def transport(request: pytest.FixtureRequest, tiny_bundle: Path, cloud: RunningCloud) -> Iterator[Transport]:
    made = InProcessTransport(tiny_bundle) if request.param == "in process" else GrpcTransport(cloud.address)
    yield made
    made.close()


def draw(transport: Transport, manifest: Manifest, gate: Gate, **changes: object) -> Track:
    values = {"seed": 11, "depth": 4, "max_ahead": 12, "guidance": 1.5, "prompt": PROMPT} | changes
    request = Request(
        prompt=str(values["prompt"]),
        sampling=Sampling(seed=values["seed"], guidance=values["guidance"]),
        num_prefix_tokens=int(values.get("num_prefix_tokens", 3)),  # type: ignore[call-overload]
        file_digests=values.get("file_digests", manifest.device_digests()),  # type: ignore[arg-type]
        depth=int(values["depth"]),  # type: ignore[call-overload]
        max_ahead=int(values["max_ahead"]),  # type: ignore[call-overload]
        acceptance=values.get("acceptance", COUPLED),  # type: ignore[arg-type]
        carry_on=bool(values.get("carry_on", False)),
    )
    sizes = manifest.num_tokens, manifest.vocab_size, manifest.feature_dim
    track = CarriedTrack(*sizes) if request.carry_on else Track(*sizes, send_features=bool(values.get("features", 1)))
    num_nodes = int(values.get("num_nodes", 0))  # type: ignore[call-overload]
    loop_of = partial(TreeLoop, num_nodes=num_nodes) if num_nodes else Loop
    loop_of(
        request,
        transport=transport,
        drafter=TableDrafter(manifest),
        gate=bounded(gate, Limits().max_block_tokens),
        track=track,
        limits=Limits(),
        deadline=Deadline(60),
        retry=RetryPolicy(),
    ).run()
    return track


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Manifest:
    return load_manifest(tiny_bundle)


@pytest.fixture(scope="module")
def reference(tiny_bundle: Path, manifest: Manifest) -> Iterator[dict[str, list[int]]]:
    """What the in-process transport commits, by gate."""
    in_process = InProcessTransport(tiny_bundle)
    gates = {"always": AlwaysAsk(), "half": FixedThreshold(0.5), "never": NeverAsk()}
    yield {name: draw(in_process, manifest, gate, depth=1).tokens.tolist() for name, gate in gates.items()}
    in_process.close()


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("name", ["always", "half", "never"])
def test_commits_are_equal_on_both_transports_at_any_depth(
    transport: Transport, manifest: Manifest, reference: dict[str, list[int]], name: str, depth: int
) -> None:
    gate: Gate = {"always": AlwaysAsk(), "half": FixedThreshold(0.5), "never": NeverAsk()}[name]
    track = draw(transport, manifest, gate, depth=depth)
    assert track.tokens.tolist() == reference[name]
    if name == "half":
        assert {Decision.LOCAL, Decision.CORRECTED} <= set(track.decisions)


def test_a_closed_gate_commits_what_the_cloud_writes_alone(transport: Transport, manifest: Manifest) -> None:
    for seed in range(8):
        sampling = Sampling(seed=seed, guidance=1.5)
        alone = [token for part, _ in transport.generate(PROMPT, sampling, (), 60) for token in part.tokens]
        assert draw(transport, manifest, AlwaysAsk(), seed=seed).tokens.tolist() == alone


@pytest.mark.parametrize("depth", [1, 4])
def test_carrying_on_commits_the_same_on_both_transports(
    transport: Transport, manifest: Manifest, tiny_bundle: Path, depth: int
) -> None:
    in_process = InProcessTransport(tiny_bundle)
    num_saved = 0
    for seed in range(6):
        for gate in (AlwaysAsk(), FixedThreshold(0.5)):
            going_back = draw(in_process, manifest, gate, seed=seed, depth=1, features=False)
            carrying_on = draw(transport, manifest, gate, seed=seed, depth=depth, carry_on=True)
            assert carrying_on.tokens.tolist() == going_back.tokens.tolist()
            assert carrying_on.decisions == going_back.decisions
            assert carrying_on.num_corrections == going_back.num_corrections > 0
            num_saved += going_back.num_requests - carrying_on.num_requests
    in_process.close()
    assert num_saved > 0


@pytest.mark.parametrize("acceptance", [Classic(), Lantern(5, 0.2)], ids=str)
def test_every_rule_gives_one_picture_per_seed_on_both_transports(
    transport: Transport, manifest: Manifest, tiny_bundle: Path, acceptance: Acceptance
) -> None:
    in_process = InProcessTransport(tiny_bundle)
    expected = draw(in_process, manifest, FixedThreshold(0.5), depth=1, acceptance=acceptance)
    in_process.close()
    track = draw(transport, manifest, FixedThreshold(0.5), depth=4, acceptance=acceptance)
    assert track.tokens.tolist() == expected.tokens.tolist()
    assert track.decisions == expected.decisions
    assert {Decision.CONFIRMED, Decision.CORRECTED, Decision.LOCAL} <= set(track.decisions)
    other = draw(transport, manifest, AlwaysAsk(), depth=4)
    assert draw(transport, manifest, AlwaysAsk(), acceptance=acceptance).tokens.tolist() != other.tokens.tolist()


def test_the_relaxed_rule_confirms_more(transport: Transport, manifest: Manifest) -> None:
    def num_confirmed(acceptance: Acceptance) -> int:
        tracks = [draw(transport, manifest, AlwaysAsk(), seed=seed, acceptance=acceptance) for seed in range(4)]
        return sum(track.num_confirmed for track in tracks)

    assert num_confirmed(Lantern(40, 0.5)) > num_confirmed(Classic()) + 10


def test_trees_commit_what_the_cloud_writes_alone(transport: Transport, manifest: Manifest) -> None:
    for seed in range(6):
        sampling = Sampling(seed=seed, guidance=1.5)
        alone = [token for part, _ in transport.generate(PROMPT, sampling, (), 60) for token in part.tokens]
        track = draw(transport, manifest, AlwaysAsk(), seed=seed, num_nodes=1 + 5 * seed)
        assert track.tokens.tolist() == alone
        assert Decision.LOCAL not in track.decisions


def test_the_cloud_alone_goes_on_where_it_was_left(transport: Transport) -> None:
    sampling = Sampling(seed=5)
    whole = [token for part, _ in transport.generate(PROMPT, sampling, (), 60) for token in part.tokens]
    rest = [token for part, _ in transport.generate(PROMPT, sampling, whole[:17], 60) for token in part.tokens]
    assert rest == whole[17:]


@pytest.mark.parametrize(
    ("changes", "error", "names"),
    [
        ({"prompt": "red filled hart"}, InvalidRequest, "hart"),
        ({"prompt": "x" * 5000}, InvalidRequest, "prompt"),
        ({"num_prefix_tokens": 1000}, InvalidRequest, "num_prefix_tokens"),
        ({"file_digests": {}}, PairMismatch, "drafter.onnx"),
        ({"acceptance": Lantern(64, 0.1)}, InvalidRequest, "num_neighbours"),
    ],
)
def test_errors_are_equal_on_both_transports(
    transport: Transport, manifest: Manifest, changes: dict[str, object], error: type[CiarError], names: str
) -> None:
    with pytest.raises(error, match=names):
        draw(transport, manifest, AlwaysAsk(), **changes)
