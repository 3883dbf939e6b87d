"""Bookkeeping where the cloud carries on: what was sent, what is drafted anew, step by step, and against nonsense."""

from __future__ import annotations

import numpy as np
import pytest

from ciar.device_client.carried import REFILL, CarriedTrack
from ciar.device_client.gates import Scores
from ciar.device_client.result import Decision
from ciar.shared.errors import ProtocolError
from ciar.shared.types import Block, Correction, Verdict, Written

FEATURE = np.ones(2, np.float32)
OTHER = 5
"""A token that no draft of `drafted` has."""


def drafted(pattern: str, num_tokens: int = 10) -> CarriedTrack:
    """`num_tokens` of 64 ids; a prefix of 1, then drafts: a asked, l local, each with 10 + its position as its id."""
    track = CarriedTrack(num_tokens, 64, 2)
    track.add_written(Written(0, (9,)), Decision.PREFIX)
    draft(track, pattern)
    return track


def draft(track: CarriedTrack, pattern: str, token: int | None = None) -> None:
    for letter in pattern:
        position = track.drafted_end
        track.add_draft(10 + position if token is None else token, Scores(1, 1, 1), FEATURE, asked=letter == "a")


def sent(track: CarriedTrack) -> Block:
    block = track.next_block(64)
    assert block is not None
    return block


def corrected(position: int, *, partial: bool = True, epoch: int = 0, token: int = OTHER) -> Verdict:
    return Verdict(epoch, position + 1, Correction(position, (token,), epoch), partial=partial)


def test_what_comes_back_needs_no_new_question() -> None:
    track = drafted("alala")
    sent(track)
    assert track.settle(corrected(1)) == 2
    assert (track.committed_end, track.drafted_end, track.epoch) == (2, 2, 0)
    draft(track, "lala")  # the same again
    assert track.next_block(64) is None
    assert (track.num_requests, track.num_awaited, track.committed_end) == (1, 1, 3)
    assert track.settle(Verdict(0, 6)) is None
    assert track.tokens[:6].tolist() == [9, OTHER, 12, 13, 14, 15]
    assert track.decisions[1:6] == [
        Decision.CORRECTED,
        Decision.LOCAL,
        Decision.CONFIRMED,
        Decision.LOCAL,
        Decision.CONFIRMED,
    ]
    assert (track.num_corrections, track.num_confirmed, track.num_in_flight) == (1, 2, 0)


def test_an_answer_may_be_there_before_its_question() -> None:
    track = drafted("alala")
    sent(track)
    track.settle(corrected(1))
    track.settle(corrected(3))
    track.settle(corrected(5, partial=False))
    draft(track, "l")
    assert track.committed_end == 3
    draft(track, "a")  # drafted 13; the cloud has drawn OTHER
    assert (track.committed_end, track.tokens[3], track.decisions[3]) == (4, OTHER, Decision.CORRECTED)
    draft(track, "l")
    draft(track, "a", OTHER)  # drafted anew as the cloud has it
    assert (track.committed_end, track.decisions[5]) == (6, Decision.CONFIRMED)
    assert (track.num_corrections, track.num_confirmed) == (2, 1)


@pytest.mark.parametrize(
    ("pattern", "token"),
    [("l", OTHER), ("a", None)],
    ids=["another token", "another question"],
)
def test_a_fork_takes_back_what_was_sent(pattern: str, token: int | None) -> None:
    track = drafted("alala")
    sent(track)
    track.settle(corrected(1))
    draft(track, pattern, token)  # at 2
    assert track.num_awaited == 0, "what is under way no longer counts"
    draft(track, "a")
    block = sent(track)
    assert (block.start, track.epoch) == (2, 1)
    assert block.asked.tolist() == [pattern == "a", True]
    assert track.settle(corrected(3)) is None, "of the old epoch"
    assert track.settle(Verdict(0, 3, stale=True)) is None
    assert track.tokens[3] == 13
    track.settle(Verdict(1, 4))
    assert (track.committed_end, track.num_in_flight) == (4, 0)


def test_a_fork_waits_for_the_answers_before_it() -> None:
    track = drafted("aalla")
    sent(track)
    track.settle(corrected(1))
    draft(track, "a")  # 2 is still open
    draft(track, "l", OTHER)  # a fork at 3, if 2 stays as it is drafted
    draft(track, "la")
    assert track.next_block(64) is None
    assert track.settle(corrected(2)) == 3
    draft(track, "lla")  # with the cloud's token at 2 everything is as it was sent
    assert track.next_block(64) is None
    assert track.epoch == 0
    track.settle(Verdict(0, 6))
    assert track.committed_end == 6


def test_near_ties_count_where_the_answer_is_used() -> None:
    track = drafted("alala")
    sent(track)
    track.settle(Verdict(0, 2, Correction(1, (OTHER,), 0), near_ties=(1,), partial=True))
    track.settle(Verdict(0, 4, Correction(3, (OTHER,), 0), near_ties=(3,), partial=True))
    assert track.near_ties == [1]
    draft(track, "l", OTHER)
    draft(track, "a")
    sent(track)
    assert track.near_ties == [1], "the one at 3 was of another history"


def test_all_is_worth_drafting_unless_the_cloud_has_plenty() -> None:
    track = drafted("a" + "la" * 16, num_tokens=64)
    assert track.survival == 1
    sent(track)
    track.settle(corrected(1))
    draft(track, "la")
    assert track.survival < 1
    track.settle(Verdict(0, 34 - REFILL, partial=True))
    draft(track, "la" * 8)
    track.settle(Verdict(0, 34))
    draft(track, "la")
    assert track.survival == 1


def test_a_new_session_begins_with_what_is_final() -> None:
    track = drafted("alala")
    sent(track)
    track.settle(corrected(1))
    draft(track, "l", OTHER)
    track.rewind()
    assert (track.epoch, track.committed_end, track.num_in_flight) == (0, 3, 0)
    history = track.history()
    assert history.tokens.tolist() == [9, OTHER, OTHER]
    assert not history.featured.any()
    draft(track, "la")
    assert (sent(track).start, track.epoch) == (3, 0)


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (Verdict(1, 6), r"^verdict\.epoch: 1 for a draft of epoch 0 in 0"),
        (Verdict(0, 1, stale=True), r"^verdict\.epoch"),
        (Verdict(0, 7), r"^verdict\.verified_through: 7 for a draft to 6"),
        (Verdict(0, 1, partial=True), r"^verdict\.verified_through: 1"),
        (Verdict(0, 4), r"^verdict\.verified_through: 4"),
        (Verdict(0, 6, partial=True), r"^verdict\.verified_through: 6"),
        (Verdict(0, 4, Correction(2, (1,), 0), partial=True), r"^verdict\.correction: 1 tokens from 2"),
        (Verdict(0, 3, Correction(2, (1,), 0), partial=True), r"^verdict\.correction: 1 tokens from 2"),
        (Verdict(0, 2, Correction(1, (1, 2), 0), partial=True), r"^verdict\.correction: 2 tokens"),
        (corrected(1, token=64), r"ids in \[64, 64\] of a vocabulary of 64"),
        (Verdict(0, 2, Correction(1, (1,), 1), partial=True), "does not carry on behind a correction; update it"),
    ],
)
def test_nonsense_is_refused(verdict: Verdict, sentence: str) -> None:
    track = drafted("alala")
    sent(track)
    with pytest.raises(ProtocolError, match=sentence):
        track.settle(verdict)


def test_a_verdict_on_nothing_is_refused() -> None:
    with pytest.raises(ProtocolError, match="no draft is in flight"):
        drafted("l").settle(Verdict(0, 2))
