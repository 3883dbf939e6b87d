"""The races of the wire, frame by frame: what the mirror holds, what is final, and when the device forks."""

from __future__ import annotations

import numpy as np
import pytest

from ciar.device_client.result import Decision
from ciar.device_client.token_buffer import Evaluation, TokenBuffer
from ciar.shared.errors import ProtocolError
from ciar.shared.types import Draft, Verdict

T = 8


def settle(buffer: TokenBuffer, samples: str, marks: str) -> None:
    """Evaluate so many positions: samples such as "1234", marks such as "m.m." (m: to be verified)."""
    for sample, mark in zip(samples, marks, strict=True):
        buffer.settle(Evaluation(int(sample), mark == "m", 0.5))


def sent(buffer: TokenBuffer) -> Draft:
    draft = buffer.next_draft()
    assert draft is not None
    return draft


def verdict(seq: int, start: int, tokens: str, num_verified: int | None = None) -> Verdict:
    count = len(tokens) if num_verified is None else num_verified
    return Verdict(seq, start, tuple(int(token) for token in tokens), count)


def started(samples: str = "12345678", marks: str = "mmmmmmmm") -> TokenBuffer:
    buffer = TokenBuffer(T)
    settle(buffer, samples, marks)
    sent(buffer)
    return buffer


def final(buffer: TokenBuffer) -> str:
    buffer.commit()
    return "".join(map(str, buffer.tokens[: buffer.committed_end].tolist()))


def test_local_tokens_are_final_without_the_cloud() -> None:
    buffer = TokenBuffer(T)
    settle(buffer, "12345678", "........")
    assert buffer.next_draft() is None
    assert final(buffer) == "12345678"
    assert buffer.decisions == [Decision.LOCAL] * T


def test_a_draft_ends_with_its_last_marked_token() -> None:
    buffer = TokenBuffer(T)
    settle(buffer, "1234", ".m..")
    draft = sent(buffer)
    assert (draft.seq, draft.start, draft.tokens.tolist(), draft.to_verify.tolist()) == (1, 0, [1, 2], [False, True])
    assert final(buffer) == "1"


def test_verified_tokens_are_final_and_say_who_decided() -> None:
    buffer = started()
    assert buffer.take_verdict(verdict(1, 0, "12")) is None
    assert final(buffer) == "12"
    assert buffer.decisions[:2] == [Decision.ACCEPTED] * 2


def test_a_rejection_changes_the_token_and_what_is_behind_is_settled_anew() -> None:
    buffer = started()
    assert buffer.take_verdict(verdict(1, 0, "1945", num_verified=2)) == 2
    assert buffer.settled_end == 2
    settle(buffer, "345678", "mmmmmm")
    assert buffer.tokens[:5].tolist() == [1, 9, 4, 5, 5], "refreshed guesses stand where nothing else is known"
    assert buffer.next_draft() is None, "what must be verified may differ: no fork"
    assert final(buffer) == "19"
    assert buffer.decisions[1] is Decision.RESAMPLED


def test_a_local_token_that_comes_out_differently_is_a_fork() -> None:
    buffer = started("12345678", "m.m.m.m.")
    assert buffer.take_verdict(verdict(1, 0, "9357", num_verified=1)) == 1
    settle(buffer, "2795678", ".m.m.m.")
    draft = sent(buffer)
    assert draft.start == 3, "the token at 1 is the same, at 2 the cloud's guess, at 3 it is another"
    assert buffer.num_forks == 1
    assert final(buffer) == "92"


@pytest.mark.parametrize("marks", ["mm.mmmmm", "m.mmmmmm"])
def test_a_mark_that_flips_is_a_fork_though_the_token_is_the_same(marks: str) -> None:
    buffer = started("12345678", "m.mmmmmm" if marks == "mm.mmmmm" else "mm.mmmmm")
    assert buffer.take_verdict(verdict(1, 0, "9", num_verified=1)) == 1
    settle(buffer, "2345678", marks[1:])
    assert sent(buffer).start == 1


def forked_at(start: int) -> TokenBuffer:
    """A buffer whose second draft, from `start` on, the cloud has not applied yet."""
    buffer = started("12345678", "mmmmmmmm")
    changed = buffer.take_verdict(verdict(1, 0, "9", num_verified=1))
    assert changed == 1
    marks = "".join("." if position == start else "m" for position in range(1, T))
    settle(buffer, "2345678", marks)
    assert sent(buffer).start == start
    return buffer


@pytest.mark.parametrize(("start", "expected_end"), [(1, 1), (2, 2), (3, 3), (5, 4), (7, 4)])
def test_a_verdict_holds_below_the_start_of_a_draft_that_crossed_it(start: int, expected_end: int) -> None:
    """It verified 1 to 3 and met a rejection at 3; the fork lies before, at, behind it, or behind the guesses."""
    buffer = forked_at(start)
    changed = buffer.take_verdict(verdict(1, 1, "23967", num_verified=3))
    assert buffer.verified_end == expected_end
    if changed is not None:
        assert changed == 4
    assert all(buffer.tokens[position] == token for position, token in ((1, 2), (2, 3)) if position < start)


def test_two_forks_in_flight_cut_at_the_lower_one() -> None:
    buffer = forked_at(5)
    assert buffer.take_verdict(verdict(1, 1, "2", num_verified=1)) is None
    buffer.take_verdict(verdict(1, 2, "9", num_verified=1))
    settle(buffer, "45678", ".mm.m")
    assert sent(buffer).start == 3
    buffer.take_verdict(verdict(1, 3, "4567", num_verified=4))
    assert buffer.verified_end == 3, "neither fork is applied"
    buffer.take_verdict(verdict(2, 3, "45", num_verified=2))
    assert buffer.verified_end == 3, "the second is not"
    buffer.take_verdict(verdict(3, 4, "56", num_verified=2))
    assert buffer.verified_end == 6


def test_fork_and_return_counts_as_two_forks() -> None:
    buffer = forked_at(2)
    buffer.take_verdict(verdict(1, 1, "4", num_verified=1))
    settle(buffer, "345678", "mmmmmm")
    assert sent(buffer).start == 2
    assert buffer.num_forks == 2
    buffer.take_verdict(verdict(1, 2, "999", num_verified=3))
    assert buffer.verified_end == 2, "though the tokens there are the same again, that was another history"


def test_an_all_local_tail_needs_no_verdict() -> None:
    buffer = started("12345678", "m.......")
    buffer.take_verdict(verdict(1, 0, "1"))
    assert final(buffer) == "12345678"


def test_a_burst_of_verdicts_is_taken_one_by_one() -> None:
    buffer = started()
    for position in range(T):
        buffer.take_verdict(verdict(1, position, str(position + 1)))
    assert final(buffer) == "12345678"
    assert buffer.num_verdicts == T


def test_a_new_stream_begins_with_what_is_final() -> None:
    buffer = started()
    buffer.take_verdict(verdict(1, 0, "12"))
    buffer.commit()
    assert buffer.reopen().tolist() == [1, 2]
    assert (buffer.settled_end, buffer.sent_end, buffer.num_verdicts) == (2, 2, 0)
    settle(buffer, "345678", "mmmmmm")
    assert (sent(buffer).seq, buffer.verified_end) == (1, 2)


def test_generated_tokens_are_final_as_they_come() -> None:
    buffer = TokenBuffer(T)
    buffer.take_generated(verdict(0, 0, "12"), Decision.PREFIX)
    assert final(buffer) == "12"
    with pytest.raises(ProtocolError, match="3 to 4 after 2"):
        buffer.take_generated(verdict(0, 3, "1"), Decision.PREFIX)
    with pytest.raises(ProtocolError):
        buffer.take_generated(verdict(0, 2, "1234567"), Decision.PREFIX)


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (verdict(2, 0, "1"), "applied_seq: 2; 1 drafts were sent"),
        (verdict(1, 0, "123456789"), "9 for 8 positions"),
    ],
)
def test_a_verdict_that_makes_no_sense_is_named(frame: Verdict, sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        started().take_verdict(frame)


def test_a_final_token_stays() -> None:
    buffer = started()
    buffer.take_verdict(verdict(1, 0, "12"))
    buffer.commit()
    with pytest.raises(ProtocolError, match="another token for position 0, which is final"):
        buffer.take_verdict(verdict(1, 0, "92"))
    np.testing.assert_array_equal(buffer.tokens[:2], [1, 2])
