"""A session's rules, frame by frame: verify, refresh, replace, wait, finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ciar.cloud_server.session import MAX_ROWS_A_TOKEN, WAIT_ROW_COST, Session
from ciar.cloud_server.window import WindowPolicy
from ciar.shared.errors import CiarError, InvalidRequest, ProtocolError
from ciar.shared.types import CloudFrame, Cost, Draft, Finish, Opened, Summary, Verdict, Verify
from tests.support.fake_runner import FakeRunner, T, admitted, draft, make_session, own_picture

CONDITION = np.array((1, 2), np.int64)
OWN = own_picture(CONDITION)
PASS_NS = 1000


class FixedWindow(WindowPolicy):
    """Every pass verifies as many positions as it is told."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self._window = window

    def choose(self, origin: object, row_cost: float, rows_per_position: float = 1.0) -> int:
        return self._window


class Bench:
    """A session, the passes of a fake model, and what it sent."""

    def __init__(self, *, window: int = 4, row_cost: float = 0.01, chunk: int = 1, **fields: object) -> None:
        self.frames: list[CloudFrame | CiarError] = []
        self.runner = FakeRunner()
        self.row_cost = row_cost
        self.now_ns = 0
        self.session: Session = make_session(
            admitted(**fields),  # type: ignore[arg-type]
            self.frames.append,
            chunk=chunk,
            policy=FixedWindow(window),
        )

    def run_pass(self) -> list[int]:
        """One pass; the positions that it verified or refreshed."""
        segment = self.session.next_segment(self.row_cost)
        (logits,) = self.runner.extend([segment])
        self.session.absorb(segment, logits, self.now_ns, PASS_NS)
        self.now_ns += PASS_NS
        return segment.wanted.tolist()

    def run(self) -> None:
        """Passes for as long as there is work."""
        while self.session.has_work:
            self.run_pass()

    def send(self, frame: Draft | Finish, after_ns: int = 0) -> None:
        self.session.receive(frame, self.now_ns + after_ns)

    @property
    def verdicts(self) -> list[Verdict]:
        return [frame for frame in self.frames if isinstance(frame, Verdict)]


def wrong(token: int) -> int:
    return (token + 1) % 8


# ---- everything is verified ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("chunk", [1, 5])
def test_the_cloud_alone_generates_its_own_picture_at_any_window(window: int, chunk: int) -> None:
    bench = Bench(window=window, chunk=chunk, verify=Verify.ALL)
    bench.run()
    assert isinstance(bench.frames[0], Opened)
    tokens = [token for verdict in bench.verdicts for token in verdict.tokens]
    assert tokens == OWN
    assert [v.start for v in bench.verdicts] == np.cumsum([0, *(len(v.tokens) for v in bench.verdicts[:-1])]).tolist()
    assert all(verdict.num_verified == len(verdict.tokens) for verdict in bench.verdicts)
    if window == 1:
        assert len(bench.runner.passes) == T


def test_right_guesses_save_passes() -> None:
    bench = Bench(window=4, verify=Verify.ALL)
    bench.send(draft(1, 0, OWN))
    bench.run()
    assert len(bench.runner.passes) == T / 4
    assert [token for verdict in bench.verdicts for token in verdict.tokens] == OWN


def test_wrong_guesses_change_nothing() -> None:
    bench = Bench(window=4, verify=Verify.ALL)
    bench.send(draft(1, 0, [wrong(token) for token in OWN]))
    bench.run()
    assert [token for verdict in bench.verdicts for token in verdict.tokens] == OWN


def test_guesses_for_what_is_verified_or_refreshed_are_left() -> None:
    bench = Bench(window=4, verify=Verify.ALL)
    bench.run_pass()
    num_verified = sum(len(verdict.tokens) for verdict in bench.verdicts)
    bench.send(draft(1, 0, [wrong(token) for token in OWN[: num_verified + 1]]))
    bench.run()
    assert [token for verdict in bench.verdicts for token in verdict.tokens] == OWN


def test_a_picture_is_taken_up_behind_its_history() -> None:
    bench = Bench(verify=Verify.ALL, history=OWN[:5])
    bench.run()
    assert bench.verdicts[0].start == 5
    assert [token for verdict in bench.verdicts for token in verdict.tokens] == OWN[5:]


def test_the_request_may_narrow_the_window() -> None:
    bench = Bench(window=8, verify=Verify.ALL, max_window=2)
    assert len(bench.run_pass()) == 2


# ---- marked tokens -------------------------------------------------------------------------------------------------


def test_the_prefix_comes_first_and_drafts_behind_it() -> None:
    bench = Bench(num_prefix_tokens=3)
    with pytest.raises(ProtocolError, match="wait for the prefix"):
        bench.send(draft(1, 3, [0]))
    bench.run()
    assert [token for verdict in bench.verdicts for token in verdict.tokens] == OWN[:3]
    assert not bench.session.has_work
    with pytest.raises(InvalidRequest, match=r"draft.start: 2; it must be in \[3, 3\]"):
        bench.send(draft(1, 2, [0]))


def marked_bench(tokens: Sequence[int], marked: Sequence[int] | None = None, **fields: object) -> Bench:
    bench = Bench(num_prefix_tokens=0, **fields)  # type: ignore[arg-type]
    bench.send(draft(1, 0, tokens, marked=marked))
    return bench


def test_right_drafts_are_verified() -> None:
    bench = marked_bench(OWN[:4])
    bench.run()
    assert bench.verdicts == [Verdict(1, 0, tuple(OWN[:4]), 4, cost=bench.verdicts[0].cost)]


def test_behind_a_rejection_samples_are_new_guesses_and_are_told() -> None:
    tokens = [OWN[0], wrong(OWN[1]), *OWN[2:4]]
    bench = marked_bench(tokens)
    bench.run_pass()
    (verdict,) = bench.verdicts
    assert (verdict.start, verdict.num_verified, verdict.tokens[:2]) == (0, 2, tuple(OWN[:2]))
    assert len(verdict.tokens) == 4, "the two behind are guesses"
    bench.run()
    held = [*OWN[:2], *(token for verdict in bench.verdicts[1:] for token in verdict.tokens[: verdict.num_verified])]
    assert held == OWN[:4]


def test_local_tokens_are_passed_over_but_are_in_the_input() -> None:
    local = wrong(OWN[1])
    bench = marked_bench([OWN[0], local, 0, 0], marked=[0, 2])
    assert bench.run_pass() == [0, 2]
    assert bench.runner.passes[0][0].tokens.tolist() == [OWN[0], local]
    bench.run()
    assert not bench.session.has_work, "the last, local token needs nothing"


def test_a_fork_replaces_all_from_its_start_on() -> None:
    bench = marked_bench([*OWN[:3], wrong(OWN[3])], marked=[0, 3])
    bench.run()
    local = wrong(OWN[1])
    bench.send(draft(2, 1, [local, OWN[2]], marked=[1], num_verdicts=1))
    assert bench.session.has_work
    assert bench.run_pass() == [2]
    assert bench.verdicts[-1].applied_seq == 2
    bench.send(draft(3, 1, [], num_verdicts=2))
    assert not bench.session.has_work, "nothing is left behind the cut"
    bench.send(Finish())
    summary = bench.frames[-1]
    assert isinstance(summary, Summary)
    assert (summary.num_drafts, summary.num_forks) == (3, 2)


BAD: dict[str, tuple[Draft, type[CiarError], str]] = {
    "a number left out": (draft(3, 4, [0]), ProtocolError, "draft.seq: 3 after 1"),
    "a number again": (draft(1, 4, [0]), ProtocolError, "draft.seq: 1 after 1"),
    "a gap": (draft(2, 5, [0]), InvalidRequest, r"draft.start: 5; it must be in \[0, 4\]"),
    "past the picture": (draft(2, 4, [0] * T), InvalidRequest, "past the picture's 12"),
    "verdicts that were not sent": (draft(2, 4, [0], num_verdicts=9), ProtocolError, "draft.num_verdicts: 9; 0 were"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_draft_is_named(case: str) -> None:
    frame, error, sentence = BAD[case]
    bench = marked_bench(OWN[:4])
    with pytest.raises(error, match=sentence):
        bench.send(frame)


# ---- waiting -------------------------------------------------------------------------------------------------------


def rejected(row_cost: float, answer_ns: int) -> Bench:
    """A session that has met a rejection, after an answer that took `answer_ns`."""
    bench = marked_bench([OWN[0], 0, 0, 0, 0, 0], row_cost=row_cost, window=1)
    bench.run_pass()
    bench.send(draft(2, 6, [0], num_verdicts=1), after_ns=answer_ns)
    while bench.session.has_work and bench.verdicts[-1].tokens[0] == bench.verdicts[-1].tokens[-1]:
        before = len(bench.verdicts)
        bench.run_pass()
        assert len(bench.verdicts) == before + 1
        if bench.verdicts[-1].waiting:
            break
    return bench


def test_where_rows_are_dear_and_the_device_is_near_the_cloud_waits() -> None:
    bench = rejected(2 * WAIT_ROW_COST, PASS_NS // 10)
    assert bench.verdicts[-1].waiting
    assert not bench.session.has_work
    bench.send(draft(3, 7, [], num_verdicts=len(bench.verdicts)))
    assert bench.session.has_work


@pytest.mark.parametrize(("row_cost", "answer_ns"), [(0.5 * WAIT_ROW_COST, 1), (2 * WAIT_ROW_COST, PASS_NS)])
def test_elsewhere_it_goes_on(row_cost: float, answer_ns: int) -> None:
    bench = rejected(row_cost, answer_ns)
    assert not any(verdict.waiting for verdict in bench.verdicts)


def test_past_a_budget_of_rows_it_waits_all_the_same() -> None:
    bench = marked_bench([0] * T, row_cost=0.001)
    seq = 1
    while not any(verdict.waiting for verdict in bench.verdicts):
        bench.run_pass()
        seq += 1
        assert seq < 100 * MAX_ROWS_A_TOKEN
        bench.send(draft(seq, 0, [0] * T))  # a device that forks for ever, and counts nothing
    assert not bench.session.has_work


# ---- the account ---------------------------------------------------------------------------------------------------


def test_costs_add_up_to_the_passes() -> None:
    bench = Bench(window=3, chunk=5, verify=Verify.ALL)
    bench.run()
    bench.send(Finish())
    total = Cost()
    for verdict in bench.verdicts:
        total += verdict.cost
    summary = bench.frames[-1]
    assert isinstance(summary, Summary)
    assert summary.cost == total
    assert total.num_passes == len(bench.runner.passes)
    assert total.forward_ns == PASS_NS * total.num_passes
    assert total.num_rows == sum(segment.num_rows for (segment,) in bench.runner.passes)
    assert summary.num_verified == T


def test_finish_ends_it_at_any_time() -> None:
    bench = marked_bench(OWN[:4])
    bench.send(Finish())
    assert isinstance(bench.frames[-1], Summary)
    assert bench.session.finished
    assert not bench.session.has_work
    with pytest.raises(ProtocolError, match="finished"):
        bench.send(draft(2, 4, [0]))


def test_a_near_tie_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(window=4, verify=Verify.ALL)
    extend: Callable[..., list[np.ndarray]] = bench.runner.extend

    def tied(segments: Sequence[object]) -> list[np.ndarray]:
        (rows,) = extend(segments)
        for row, position in zip(rows, segments[0].wanted.tolist(), strict=True):  # type: ignore[attr-defined]
            if position == 2:
                order = np.argsort(row)
                row[order[-2]] = row[order[-1]] - 1e-4
        return [rows]

    monkeypatch.setattr(bench.runner, "extend", tied)
    bench.run()
    assert [tie for verdict in bench.verdicts for tie in verdict.near_ties] == [2]


def test_an_error_ends_it() -> None:
    bench = Bench(verify=Verify.ALL)
    bench.session.fail(ProtocolError("no"))
    assert isinstance(bench.frames[-1], ProtocolError)
    assert not bench.session.has_work
