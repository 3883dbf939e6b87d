"""Trees of drafts: what grows, and pictures that are the cloud's own whatever is offered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciar.device_client.gates import AlwaysAsk
from ciar.device_client.loop import Request
from ciar.device_client.result import Decision
from ciar.device_client.track import Track
from ciar.device_client.tree import Branches, TreeLoop, grow
from ciar.device_client.waiting import Deadline, RetryPolicy
from ciar.shared.bundle import Manifest
from ciar.shared.errors import CiarError, ProtocolError, Unavailable
from ciar.shared.sampling import Noise
from ciar.shared.tree import ROOT
from ciar.shared.types import Correction, Limits, Sampling, Tokens, TreeDraft, Verdict
from ciar.shared.verification import law
from tests.device_client.conftest import QUICK
from tests.device_client.fakes import CONDITION, FakeCloud, FakeDrafter

SAMPLING = Sampling(seed=3, temperature=0.8, top_k=5)


def fresh(manifest: Manifest) -> FakeDrafter:
    drafter = FakeDrafter(manifest, 0.7)
    drafter.reset(CONDITION)
    return drafter


def path_of(tokens: Tokens, parents: Tokens, node: int) -> tuple[int, ...]:
    return () if node == ROOT else (*path_of(tokens, parents, int(parents[node])), int(tokens[node]))


def confidences(manifest: Manifest, tokens: Tokens, start: int, path: Sequence[int]) -> np.ndarray:
    """The law q (V,) behind a path, from a drafter that has never seen another branch."""
    known = tokens.copy()
    known[start : start + len(path)] = path
    position = start + len(path)
    drafter = fresh(manifest)
    drafter.read(known, 0, position)
    return law(drafter.step(known, position).center, SAMPLING)


@pytest.mark.parametrize("start", [0, 5])
def test_the_most_confident_continuations_of_all_grow(manifest: Manifest, start: int) -> None:
    decided = np.arange(manifest.num_tokens) % manifest.vocab_size
    tokens, parents = grow(Branches(fresh(manifest), manifest.num_tokens), decided, start, 12, SAMPLING)
    grown = {path_of(tokens, parents, node) for node in range(12)}
    assert len(grown) == 12

    # Every token sequence up to length 3, by brute force.
    confidence: dict[tuple[int, ...], float] = {(): 1.0}
    for length in range(3):
        for path in product(range(manifest.vocab_size), repeat=length):
            for token, share in enumerate(confidences(manifest, decided, start, path)):
                confidence[(*path, token)] = confidence[path] * share
    del confidence[()]
    short = sorted((path for path in grown if len(path) <= 3), key=confidence.__getitem__)
    least = confidence[short[0]]
    assert {path for path, value in confidence.items() if value > least} <= grown


def test_a_tree_stays_inside_the_picture(manifest: Manifest) -> None:
    start = manifest.num_tokens - 2
    tokens, parents = grow(
        Branches(fresh(manifest), manifest.num_tokens), np.zeros(manifest.num_tokens, np.int64), start, 9, SAMPLING
    )
    assert max(len(path_of(tokens, parents, node)) for node in range(len(tokens))) <= 2


def test_branches_share_rows_and_read_no_more_than_what_differs(manifest: Manifest) -> None:
    class Reading(FakeDrafter):
        spans: list[tuple[int, int]] = []  # noqa: RUF012

        def read(self, tokens: Tokens, start: int, end: int) -> None:
            if end > start + 1 or not self.stepping:
                self.spans.append((start, end))
            super().read(tokens, start, end)

        stepping = False

        def step(self, tokens: Tokens, position: int):  # type: ignore[no-untyped-def]
            self.stepping = True
            proposal = super().step(tokens, position)
            self.stepping = False
            return proposal

    drafter = Reading(manifest)
    drafter.reset(CONDITION)
    branches = Branches(drafter, manifest.num_tokens)
    tokens = np.zeros(manifest.num_tokens, np.int64)
    branches.look(tokens, 4)  # rows 0 … 3 are read, row 4 is stepped
    branches.look(tokens, 5)
    tokens[4] = 1
    branches.look(tokens, 5)  # row 5 alone is another
    branches.look(tokens, 7)  # row 6 was never read
    tokens[2] = 1
    branches.look(tokens, 7)  # rows 3 … 6
    assert drafter.spans == [(0, 4), (6, 7), (3, 7)]


def draw_by_trees(
    manifest: Manifest,
    cloud: FakeCloud,
    *,
    seed: int = 0,
    num_nodes: int = 6,
    num_prefix_tokens: int = 2,
    agreement: float = 0.5,
    retry: RetryPolicy = QUICK,
) -> tuple[Track, TreeLoop]:
    track = Track(manifest.num_tokens, manifest.vocab_size, manifest.feature_dim)
    loop = TreeLoop(
        Request("x", Sampling(seed=seed), num_prefix_tokens, manifest.device_digests(), depth=1, max_ahead=1),
        num_nodes=num_nodes,
        transport=cloud,
        drafter=FakeDrafter(manifest, agreement),
        gate=AlwaysAsk(),
        track=track,
        limits=cloud.limits,
        deadline=Deadline(20),
        retry=retry,
    )
    loop.run()
    return track, loop


def test_trees_prepare_no_noise(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[object] = []
    monkeypatch.setattr(Noise, "prepare", lambda *arguments: prepared.append(arguments))
    draw_by_trees(manifest, FakeCloud(manifest))
    assert not prepared


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1), num_nodes=st.integers(1, 9), num_prefix_tokens=st.integers(0, 16),
    agreement=st.floats(0, 1), failures=st.sets(st.integers(0, 30), max_size=3),
)  # fmt: skip
def test_trees_give_the_clouds_own_picture_whatever_they_offer(
    manifest: Manifest, seed: int, num_nodes: int, num_prefix_tokens: int, agreement: float, failures: set[int]
) -> None:
    errors: dict[int, CiarError] = {number: Unavailable("gone") for number in failures}
    cloud = FakeCloud(manifest, limits=Limits(max_block_tokens=9), failures=errors)
    patient = RetryPolicy(first_pause_s=0, longest_pause_s=0, give_up_after_s=10)
    track, _ = draw_by_trees(
        manifest, cloud, seed=seed, num_nodes=num_nodes, num_prefix_tokens=num_prefix_tokens, agreement=agreement,
        retry=patient,
    )  # fmt: skip
    assert tuple(track.tokens.tolist()) == cloud.model.picture(Sampling(seed=seed))


def test_what_became_of_a_tree_is_counted(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest)
    track, loop = draw_by_trees(manifest, cloud)
    assert track.num_requests == len(cloud.trees)
    assert track.num_asked == sum(len(tree.tokens) for tree in cloud.trees)
    assert track.num_confirmed == track.decisions.count(Decision.CONFIRMED)
    assert track.num_discarded == track.num_asked - track.num_confirmed
    assert 0 < track.num_corrections <= track.decisions.count(Decision.CORRECTED)
    assert set(track.decisions) == {Decision.PREFIX, Decision.CONFIRMED, Decision.CORRECTED}
    assert loop.account.drafting_s > 0


def test_a_wider_tree_asks_less_often(manifest: Manifest) -> None:
    narrow, wide = (draw_by_trees(manifest, FakeCloud(manifest), num_nodes=n)[0].num_requests for n in (1, 8))
    assert wide < narrow


TREE = TreeDraft(0, 2, np.array([5, 6, 7]), np.array([-1, -1, 0]))


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (Verdict(0, 5), "no tokens from 2 on"),
        (Verdict(0, 3, stale=True), "no tokens from 2 on"),
        (Verdict(1, 3, Correction(2, (5,), 1)), "no tokens from 2 on"),
        (Verdict(0, 4, Correction(3, (5,), 1)), "no tokens from 2 on"),
        (Verdict(0, 4, Correction(2, (5, 10), 1)), r"ids in \[10, 10\] of a vocabulary of 10"),
        (Verdict(0, 9, Correction(2, (5, 7, 1, 1, 1, 1, 1), 1)), "more than a picture of 8"),
    ],
)
def test_a_verdict_that_does_not_fit_its_tree(verdict: Verdict, sentence: str) -> None:
    track = Track(8, 10, 2)
    track.add_tree(TREE)
    with pytest.raises(ProtocolError, match=sentence):
        track.settle_tree(TREE, verdict)
