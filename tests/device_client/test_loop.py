"""The decoding loop against a fake cloud: what is drawn depends on the seed and the gate, and on nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ciar.device_client import loop
from ciar.device_client.carried import CarriedTrack
from ciar.device_client.gates import AlwaysAsk, Gate, NeverAsk, bounded, make_gate
from ciar.device_client.loop import Loop, Request
from ciar.device_client.result import Decision
from ciar.device_client.track import Track
from ciar.device_client.waiting import Deadline, RetryPolicy
from ciar.shared.bundle import Manifest
from ciar.shared.errors import Busy, CiarError, InvalidRequest, PairMismatch, ProtocolError, TimedOut, Unavailable
from ciar.shared.sampling import Noise, sample
from ciar.shared.types import COUPLED, Acceptance, Classic, Lantern, Limits, Sampling
from tests.device_client.conftest import QUICK
from tests.device_client.fakes import FakeCloud, FakeDrafter

delays = st.lists(st.integers(0, 6), min_size=1, max_size=8)
gate_specs = st.sampled_from(
    ["quantile:0.3", "quantile:0.6:ambiguity", "threshold:0.2", "certified:4", "always", "never"]
)
acceptances = st.sampled_from([COUPLED, Classic(), Lantern(3, 0.3)])


def draw(
    manifest: Manifest,
    cloud: FakeCloud,
    gate: Gate | str,
    *,
    seed: int = 0,
    num_prefix_tokens: int = 2,
    depth: int = 4,
    max_ahead: int = 8,
    agreement: float = 0.5,
    send_features: bool = True,
    timeout_s: float = 20.0,
    retry: RetryPolicy = QUICK,
    acceptance: Acceptance = COUPLED,
    temperature: float = 1.0,
    carry_on: bool = False,
) -> tuple[Track, Loop]:
    sizes = manifest.num_tokens, manifest.vocab_size, manifest.feature_dim
    track = CarriedTrack(*sizes) if carry_on else Track(*sizes, send_features=send_features)
    request = Request(
        "x",
        Sampling(seed=seed, temperature=temperature),
        num_prefix_tokens,
        manifest.device_digests(),
        depth=depth,
        max_ahead=max_ahead,
        acceptance=acceptance,
        carry_on=carry_on,
    )
    drawing = Loop(
        request,
        transport=cloud,
        drafter=FakeDrafter(manifest, agreement),
        gate=bounded(make_gate(gate, manifest) if isinstance(gate, str) else gate, cloud.limits.max_block_tokens),
        track=track,
        limits=cloud.limits,
        deadline=Deadline(timeout_s),
        retry=retry,
    )
    drawing.run()
    return track, drawing


def decided(track: Track) -> tuple[Any, ...]:
    """All of a track that must not depend on timing."""
    return track.tokens.tolist(), track.decisions, np.nan_to_num(track.uncertainty, nan=-1).tolist()


@pytest.mark.parametrize("agreement", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_prefix_tokens", [0, 5, 16])
def test_a_closed_gate_gives_the_clouds_own_picture(
    manifest: Manifest, agreement: float, num_prefix_tokens: int
) -> None:
    cloud = FakeCloud(manifest)
    track, _ = draw(manifest, cloud, AlwaysAsk(), seed=3, agreement=agreement, num_prefix_tokens=num_prefix_tokens)
    assert tuple(track.tokens.tolist()) == cloud.model.picture(Sampling(seed=3))
    assert track.decisions[:num_prefix_tokens] == [Decision.PREFIX] * num_prefix_tokens
    if agreement == 1:
        assert set(track.decisions[num_prefix_tokens:]) <= {Decision.CONFIRMED}
        assert track.num_discarded == 0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1), delays=delays, depth=st.integers(1, 6), max_ahead=st.integers(1, 20),
    agreement=st.floats(0, 1), write_ahead=st.integers(1, 4), carry_on=st.booleans(),
)  # fmt: skip
def test_lossless_whatever_drafter_depth_and_delay(
    manifest: Manifest, seed: int, delays: list[int], depth: int, max_ahead: int, agreement: float, write_ahead: int,
    carry_on: bool,
) -> None:  # fmt: skip
    cloud = FakeCloud(manifest, delays=delays, write_ahead=write_ahead)
    how = {"depth": depth, "max_ahead": max_ahead, "agreement": agreement, "carry_on": carry_on}
    track, _ = draw(manifest, cloud, AlwaysAsk(), seed=seed, **how)  # type: ignore[arg-type]
    assert tuple(track.tokens.tolist()) == cloud.model.picture(Sampling(seed=seed))


@settings(max_examples=100, deadline=None)
@given(
    spec=gate_specs, seed=st.integers(0, 1000), delays=delays, depth=st.integers(1, 6), max_ahead=st.integers(1, 20),
    write_ahead=st.integers(1, 3), block=st.integers(1, 8), send_features=st.booleans(),
    acceptance=acceptances,
)  # fmt: skip
def test_one_seed_one_picture_whatever_the_network_does(
    manifest: Manifest, spec: str, seed: int, delays: list[int], depth: int, max_ahead: int, write_ahead: int,
    block: int, send_features: bool, acceptance: Acceptance,
) -> None:  # fmt: skip
    limits = Limits(max_block_tokens=block, max_in_flight=3)
    quiet = FakeCloud(manifest, write_ahead=write_ahead, limits=limits)
    noisy = FakeCloud(manifest, write_ahead=write_ahead, limits=limits, delays=delays)
    same = {"seed": seed, "send_features": send_features, "acceptance": acceptance}
    one, _ = draw(manifest, quiet, spec, depth=1, max_ahead=1, **same)  # type: ignore[arg-type]
    other, _ = draw(manifest, noisy, spec, depth=depth, max_ahead=max_ahead, **same)  # type: ignore[arg-type]
    assert decided(one) == decided(other)


@settings(max_examples=200, deadline=None)
@given(
    spec=gate_specs, seed=st.integers(0, 1000), delays=delays, depth=st.integers(1, 6), max_ahead=st.integers(1, 20),
    block=st.integers(1, 8), agreement=st.floats(0, 1), failures=st.sets(st.integers(0, 30), max_size=3),
)  # fmt: skip
def test_carrying_on_gives_the_same_picture_decision_by_decision(
    manifest: Manifest, spec: str, seed: int, delays: list[int], depth: int, max_ahead: int, block: int,
    agreement: float, failures: set[int],
) -> None:  # fmt: skip
    limits = Limits(max_block_tokens=block, max_in_flight=3)
    same = {"seed": seed, "send_features": False, "agreement": agreement}
    going_back, _ = draw(manifest, FakeCloud(manifest, limits=limits), spec, depth=1, **same)  # type: ignore[arg-type]
    cloud = FakeCloud(
        manifest, limits=limits, delays=delays, failures={number: Unavailable("gone") for number in failures}
    )
    patient = RetryPolicy(first_pause_s=0, longest_pause_s=0, give_up_after_s=10)
    how = {"depth": depth, "max_ahead": max_ahead, "carry_on": True, "retry": patient, **same}
    carrying_on, _ = draw(manifest, cloud, spec, **how)  # type: ignore[arg-type]
    assert decided(carrying_on) == decided(going_back)
    if not failures:
        assert carrying_on.num_corrections == going_back.num_corrections


@settings(max_examples=100, deadline=None)
@given(
    spec=gate_specs, seed=st.integers(0, 1000), delays=delays, depth=st.integers(1, 6),
    write_ahead=st.integers(1, 3), failures=st.sets(st.integers(0, 30), max_size=4), acceptance=acceptances,
)  # fmt: skip
def test_a_picture_survives_lost_connections(
    manifest: Manifest, spec: str, seed: int, delays: list[int], depth: int, write_ahead: int, failures: set[int],
    acceptance: Acceptance,
) -> None:  # fmt: skip
    quiet = FakeCloud(manifest, write_ahead=write_ahead)
    undisturbed, _ = draw(manifest, quiet, spec, seed=seed, acceptance=acceptance)
    cloud = FakeCloud(
        manifest,
        write_ahead=write_ahead,
        delays=delays,
        failures={number: Unavailable("gone") for number in failures},
    )
    patient = RetryPolicy(first_pause_s=0, longest_pause_s=0, give_up_after_s=10)
    disturbed, _ = draw(manifest, cloud, spec, seed=seed, depth=depth, retry=patient, acceptance=acceptance)
    assert decided(disturbed) == decided(undisturbed)


def test_a_resumed_session_tells_all_that_is_final(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest, failures={4: Unavailable("gone")})
    track, drawn = draw(manifest, cloud, "quantile:0.5", seed=1)
    first, second = cloud.opens
    history = second.history
    assert first.history.end == 0 < history.end
    assert history.tokens.tolist() == track.tokens[: history.end].tolist()
    assert not history.asked.any()
    local = [decision is Decision.LOCAL for decision in track.decisions[: history.end]]
    assert history.featured.tolist() == local
    assert history.features.shape == (sum(local), manifest.feature_dim)
    assert drawn.account.num_resumptions == 1


def test_local_tokens_ride_with_the_next_question_and_the_last_ones_stay(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest)
    track, _ = draw(manifest, cloud, "quantile:0.3", seed=2, depth=1)
    assert all(draft.block.asked[-1] for draft in cloud.drafts)
    last_asked = max(p for p, decision in enumerate(track.decisions) if decision is not Decision.LOCAL)
    assert max(draft.block.end for draft in cloud.drafts) == last_asked + 1
    assert sum(int(draft.block.asked.sum()) for draft in cloud.drafts) == track.num_asked
    assert len(cloud.drafts) == track.num_requests


def test_the_device_alone_asks_nothing_after_the_prefix(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest)
    track, _ = draw(manifest, cloud, NeverAsk())
    assert not cloud.drafts
    assert track.decisions == [Decision.PREFIX] * 2 + [Decision.LOCAL] * (manifest.num_tokens - 2)


def test_a_blocks_features_are_those_of_its_local_tokens(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest)
    draw(manifest, cloud, "quantile:0.3", seed=2)
    for draft in cloud.drafts:
        assert (draft.block.featured == ~draft.block.asked).all()
    silent = FakeCloud(manifest)
    draw(manifest, silent, "quantile:0.3", seed=2, send_features=False)
    assert not any(draft.block.featured.any() for draft in silent.drafts)


def test_the_law_that_was_drawn_from_travels_with_each_question(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest)
    track, _ = draw(manifest, cloud, "quantile:0.3", seed=2, acceptance=Classic())
    for draft in cloud.drafts:
        block = draft.block
        assert block.laws is not None
        assert block.laws.shape == (block.asked.sum(), manifest.vocab_size)
        for position, law in zip(block.start + np.flatnonzero(block.asked), block.laws, strict=True):
            token = sample(law.astype(np.float32), seed=2, position=int(position))
            assert block.tokens[position - block.start] == token
    assert cloud.opens[0].acceptance == Classic()
    assert {Decision.CONFIRMED, Decision.CORRECTED} <= set(track.decisions)
    silent = FakeCloud(manifest)
    draw(manifest, silent, "quantile:0.3", seed=2)
    assert all(draft.block.laws is None for draft in silent.drafts)


def test_what_was_drafted_past_a_correction_is_counted(manifest: Manifest) -> None:
    eager = FakeCloud(manifest, delays=[5])
    track, _ = draw(manifest, eager, AlwaysAsk(), agreement=0.0, depth=1, max_ahead=4)
    assert track.num_corrections > 0
    assert track.num_discarded > 0
    patient, _ = draw(manifest, FakeCloud(manifest, delays=[5]), AlwaysAsk(), agreement=0.0, depth=1, max_ahead=1)
    assert patient.num_discarded == 0


class RecordingNoise(Noise):
    """Notes what was prepared and at which positions it was looked at."""

    prepared: list[tuple[int, int]]
    looked_at: list[int]

    def prepare(self, start: int, end: int) -> None:
        self.prepared.append((start, end))
        super().prepare(start, end)

    def at(self, position: int) -> NDArray[np.float32]:
        self.looked_at.append(position)
        return super().at(position)


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> type[RecordingNoise]:
    monkeypatch.setattr(RecordingNoise, "prepared", [], raising=False)
    monkeypatch.setattr(RecordingNoise, "looked_at", [], raising=False)
    monkeypatch.setattr(loop, "Noise", RecordingNoise)
    return RecordingNoise


def test_noise_is_prepared_behind_the_prefix_and_drawn_with(manifest: Manifest, noise: type[RecordingNoise]) -> None:
    eager = FakeCloud(manifest, delays=[5])
    track, _ = draw(manifest, eager, AlwaysAsk(), agreement=0.0, depth=1, max_ahead=4, num_prefix_tokens=3)
    assert noise.prepared == [(3, manifest.num_tokens)]
    assert min(noise.looked_at) == 3
    assert len(noise.looked_at) == manifest.num_tokens - 3 + track.num_discarded > manifest.num_tokens


def test_a_resumed_session_prepares_no_noise_of_what_is_final(manifest: Manifest, noise: type[RecordingNoise]) -> None:
    cloud = FakeCloud(manifest, failures={6: Unavailable("gone")})
    draw(manifest, cloud, AlwaysAsk(), num_prefix_tokens=2)
    assert noise.prepared == [(2, manifest.num_tokens), (cloud.opens[1].history.end, manifest.num_tokens)]
    assert cloud.opens[1].history.end > 2


def test_a_greedy_picture_needs_no_noise(manifest: Manifest, noise: type[RecordingNoise]) -> None:
    draw(manifest, FakeCloud(manifest), AlwaysAsk(), temperature=0.0)
    assert (noise.prepared, noise.looked_at) == ([], [])


def test_a_drafter_that_is_always_wrong_stops_drafting_in_vain(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def discarded() -> int:
        cloud = FakeCloud(manifest, delays=[50])
        return draw(manifest, cloud, AlwaysAsk(), agreement=0.0, max_ahead=16)[0].num_discarded

    careful = discarded()
    monkeypatch.setattr(loop, "MIN_SURVIVAL", 0.0)
    assert careful < discarded() / 2


def test_busy_is_waited_for(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest, failures={0: Busy("full", 1), 1: Busy("full", 1)})
    track, drawn = draw(manifest, cloud, AlwaysAsk())
    assert track.is_complete
    assert drawn.account.num_resumptions == 0  # there was no session to take up


def test_busy_past_the_deadline_is_an_error_at_once(manifest: Manifest) -> None:
    with pytest.raises(Busy):
        draw(manifest, FakeCloud(manifest, failures={0: Busy("full", 60_000)}), AlwaysAsk(), timeout_s=1)


def test_patience_ends(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest, failures={number: Unavailable("gone") for number in range(5, 100_000)})
    with pytest.raises(Unavailable):
        draw(manifest, cloud, AlwaysAsk())
    assert len(cloud.opens) == 1


def test_the_deadline_ends_everything(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest, failures={number: Unavailable("gone") for number in range(5, 100_000)})
    patient = RetryPolicy(first_pause_s=0.001, longest_pause_s=0.002, give_up_after_s=60)
    with pytest.raises((TimedOut, Unavailable)):
        draw(manifest, cloud, AlwaysAsk(), timeout_s=0.2, retry=patient)


@pytest.mark.parametrize("error", [PairMismatch("other pair"), InvalidRequest("prompt: no"), ProtocolError("no")])
def test_what_another_attempt_cannot_mend_is_not_tried_again(manifest: Manifest, error: CiarError) -> None:
    cloud = FakeCloud(manifest, failures={3: error})
    with pytest.raises(type(error)):
        draw(manifest, cloud, AlwaysAsk())
    assert len(cloud.opens) == 1
