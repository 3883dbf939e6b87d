"""Bookkeeping of one picture, step by step, and against a cloud that answers nonsense."""

from __future__ import annotations

import numpy as np
import pytest

from ciar.device_client.gates import Scores
from ciar.device_client.result import Decision
from ciar.device_client.track import Track
from ciar.shared.errors import ProtocolError
from ciar.shared.types import Correction, Verdict, Written

FEATURE = np.ones(2, np.float32)


def make_track(pattern: str) -> Track:
    """8 tokens of 10 ids; a prefix of 1, then drafts: a asked, l local, each with its position as its id."""
    track = Track(8, 10, 2)
    track.add_written(Written(0, (9,)), Decision.PREFIX)
    for letter in pattern:
        track.add_draft(track.drafted_end, Scores(1, 1, 1), FEATURE, asked=letter == "a")
    return track


def test_local_tokens_before_any_question_are_final_at_once() -> None:
    track = make_track("lla")
    assert (track.committed_end, track.drafted_end) == (3, 4)


def test_a_block_ends_with_the_last_question() -> None:
    track = make_track("lalal")
    block = track.next_block(64)
    assert block is not None
    assert (block.start, block.end) == (1, 5)
    assert block.asked.tolist() == [False, True, False, True]
    assert track.next_block(64) is None


def test_a_long_block_is_cut_behind_a_question() -> None:
    track = make_track("laalla")
    spans = [(block.start, block.end) for block in iter(lambda: track.next_block(3), None)]
    assert spans == [(1, 4), (4, 7)]


def test_a_confirmed_block_makes_the_local_tokens_behind_it_final() -> None:
    track = make_track("allal")
    track.next_block(2)
    assert track.settle(Verdict(0, 2)) is None
    assert track.committed_end == 4
    assert track.decisions[1] is Decision.CONFIRMED


def test_a_correction_of_several_tokens() -> None:
    track = make_track("alala")
    track.next_block(64)
    assert track.settle(Verdict(0, 5, Correction(3, (7, 8), next_epoch=1))) == 4
    assert track.tokens[:5].tolist() == [9, 1, 2, 7, 8]
    assert track.decisions[1:5] == [Decision.CONFIRMED, Decision.LOCAL, Decision.CORRECTED, Decision.CORRECTED]
    assert (track.committed_end, track.drafted_end, track.epoch, track.num_discarded) == (5, 5, 1, 2)
    assert np.isnan(track.uncertainty[4])
    assert track.next_block(64) is None


def test_survival_falls_with_every_open_question_and_learns_from_answers() -> None:
    track = make_track("laa")
    assert track.survival == 1 / 4  # two open questions, none answered: one half each
    track.next_block(2)
    track.settle(Verdict(0, 3))
    assert track.survival == 2 / 3
    track.next_block(64)
    track.settle(Verdict(0, 4, Correction(3, (5,), 1)))
    assert track.survival == 1
    track.add_draft(1, Scores(1, 1, 1), FEATURE, asked=True)
    assert track.survival == 1 / 2
    track.rewind()
    assert track.survival == 1


def test_stale_verdicts_change_nothing_but_are_awaited() -> None:
    track = make_track("aa")
    track.next_block(1)
    track.next_block(1)
    track.settle(Verdict(0, 2, Correction(1, (5,), 1)))
    assert (track.num_awaited, track.num_in_flight) == (0, 1)
    assert track.settle(Verdict(0, 2, stale=True)) is None
    assert (track.committed_end, track.num_in_flight) == (2, 0)


def test_rewind_keeps_what_is_final() -> None:
    track = make_track("lala")
    track.next_block(64)
    track.rewind()
    assert (track.committed_end, track.drafted_end, track.num_in_flight, track.num_discarded) == (2, 2, 0, 3)
    assert track.history().tokens.tolist() == [9, 1]
    assert track.history().featured.tolist() == [False, True]


def test_a_feature_too_large_for_the_wire_is_clipped() -> None:
    track = Track(2, 10, 2)
    track.add_draft(1, Scores(1, 1, 1), np.array([1e9, -1e9], np.float32), asked=False)
    assert np.isfinite(track.history().features).all()


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(1, 2),
        Verdict(0, 2, stale=True),
        Verdict(0, 3),
        Verdict(0, 2, Correction(2, (1,), 1)),
        Verdict(0, 2, Correction(1, (10,), 1)),
        Verdict(0, 2, Correction(1, (1,) * 8, 1)),
    ],
)
def test_a_verdict_that_does_not_fit_is_refused(verdict: Verdict) -> None:
    track = make_track("a")
    track.next_block(64)
    with pytest.raises(ProtocolError):
        track.settle(verdict)


def test_a_verdict_without_a_draft_is_refused() -> None:
    with pytest.raises(ProtocolError, match="no draft"):
        make_track("a").settle(Verdict(0, 2))


@pytest.mark.parametrize("written", [Written(3, (1,)), Written(1, (10,)), Written(1, (1,) * 8)])
def test_a_prefix_that_does_not_fit_is_refused(written: Written) -> None:
    with pytest.raises(ProtocolError):
        make_track("").add_written(written, Decision.PREFIX)
