"""One session's rules, with laws that depend on the whole history, so that a wrong roll-back shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ciar.cloud_server.session import Session
from ciar.shared.errors import CiarError, InternalError, InvalidRequest, ProtocolError
from ciar.shared.types import (
    Acceptance,
    Block,
    Classic,
    CloudFrame,
    Correction,
    Coupled,
    Draft,
    Finish,
    Lantern,
    Limits,
    Opened,
    Summary,
    TreeDraft,
    Verdict,
    Written,
)
from tests.support.fake_runner import FakeRunner, R, T, V, admitted, block, law, own_picture

CONDITION = np.array([1, 2], np.int64)
OWN = own_picture(CONDITION)


class Table:
    """A session and a runner on one table; `step` is what the engine does."""

    def __init__(self, limits: Limits | None = None, **fields: Any) -> None:
        self.replies: list[CloudFrame | CiarError] = []
        self.runner = FakeRunner()
        self.session = Session(
            admitted(**fields),
            0,
            self.replies.append,
            num_tokens=T,
            feature_dim=R,
            limits=limits or Limits(max_block_tokens=8, max_in_flight=3),
        )

    def step(self) -> None:
        segment = self.session.next_segment()
        (logits,) = self.runner.extend([segment])
        self.session.absorb(segment, logits, started_ns=0, forward_ns=7)

    def settle(self) -> list[CloudFrame | CiarError]:
        """Run until nothing is to do; the frames that came since the last call."""
        while self.session.has_work:
            self.step()
        frames, self.replies[:] = list(self.replies), []
        return frames

    def draft(self, tokens: list[int], start: int, epoch: int = 0, **fields: Any) -> None:
        self.session.receive(Draft(epoch, block(tokens, start, **fields)))


def wrong(position: int) -> int:
    return (OWN[position] + 1) % V


def plain(verdict: CloudFrame | CiarError) -> tuple[int, int, Correction | None, bool]:
    """A verdict without what it cost."""
    assert isinstance(verdict, Verdict)
    return verdict.epoch, verdict.verified_through, verdict.correction, verdict.stale


def test_prefix_is_the_clouds_own() -> None:
    table = Table(write_until=3)
    opened, prefix = table.settle()
    assert opened == Opened("s", (1, 2))
    assert isinstance(prefix, Written)
    assert (prefix.start, list(prefix.tokens)) == (0, OWN[:3])
    assert prefix.cost.num_passes == 3
    assert prefix.cost.forward_ns == 21


def test_no_prefix_is_an_empty_frame_at_once() -> None:
    table = Table(write_until=0)
    assert not table.session.has_work
    assert table.settle() == [Opened("s", (1, 2)), Written(0, ())]


def test_always_right_drafts_are_verified() -> None:
    table = Table(write_until=3)
    table.settle()
    table.draft(OWN[3:8], 3)
    assert [plain(frame) for frame in table.settle()] == [(0, 8, None, False)]


def test_never_right_drafts_are_corrected_at_the_first() -> None:
    table = Table(write_until=3)
    table.settle()
    table.draft([wrong(t) for t in range(3, 8)], 3)
    assert [plain(frame) for frame in table.settle()] == [(0, 4, Correction(3, (OWN[3],), 1), False)]


def test_sometimes_right_drafts_are_corrected_where_they_go_wrong() -> None:
    table = Table(write_until=3)
    table.settle()
    table.draft([*OWN[3:5], wrong(5), 0, 0], 3)
    assert [plain(frame) for frame in table.settle()] == [(0, 6, Correction(5, (OWN[5],), 1), False)]
    table.draft(OWN[6:T], 6, epoch=1)
    assert [plain(frame) for frame in table.settle()] == [(1, T, None, False)]


def test_tokens_that_are_not_asked_stand_and_shape_the_later_laws() -> None:
    table = Table(write_until=2)
    table.settle()
    kept = [wrong(2), wrong(3)]
    condition = own_picture(CONDITION, [*OWN[:2], *kept])
    table.draft([*kept, condition[4]], 2, asked=[2])
    assert [plain(frame) for frame in table.settle()] == [(0, 5, None, False)]


def test_features_shape_the_laws_after_their_token() -> None:
    table = Table(write_until=1)
    table.settle()
    tokens = np.array([OWN[0], 5, 6])
    features = np.zeros((3, R), np.float32)
    features[1], features[2] = 0.5, -2.0
    expected = int(law(CONDITION, tokens, features).argmax())
    table.draft([5, 6, expected], 1, asked=[2], features={0: 0.5, 1: -2.0})
    assert [plain(frame) for frame in table.settle()] == [(0, 4, None, False)]


def test_a_correction_forgets_the_features_after_it() -> None:
    table = Table(write_until=0)
    table.settle()
    table.draft([wrong(0), 3, 3, 3], 0, asked=[0, 3], features={1: 1.0, 2: 1.0})
    table.settle()
    table.draft(OWN[1:T][:8], 1, epoch=1)
    assert [plain(frame) for frame in table.settle()] == [(1, 9, None, False)]


def test_all_waiting_drafts_go_into_one_pass_and_are_answered_in_order() -> None:
    table = Table(write_until=3)
    table.settle()
    num_passes = len(table.runner.passes)
    table.draft(OWN[3:5], 3)
    table.draft(OWN[5:9], 5)
    table.draft(OWN[9:T], 9)
    frames = table.settle()
    assert len(table.runner.passes) == num_passes + 1
    assert [plain(frame)[1] for frame in frames] == [5, 9, T]
    costs = [frame.cost for frame in frames if isinstance(frame, Verdict)]
    assert [cost.num_passes for cost in costs] == [1, 0, 0]  # the pass is counted once
    assert sum(cost.forward_ns for cost in costs) == 7


def test_a_correction_makes_the_drafts_behind_it_stale() -> None:
    table = Table(write_until=3)
    table.settle()
    table.draft([OWN[3], wrong(4)], 3)
    table.draft([1, 1], 5)
    table.draft([1], 7)
    assert [plain(frame) for frame in table.settle()] == [
        (0, 5, Correction(4, (OWN[4],), 1), False),
        (0, 5, None, True),
        (0, 5, None, True),
    ]
    table.draft([1], 8)  # sent before the device knew
    assert [plain(frame) for frame in table.settle()] == [(0, 5, None, True)]
    table.draft(OWN[5:T], 5, epoch=1)
    assert [plain(frame) for frame in table.settle()] == [(1, T, None, False)]


@dataclass
class Device:
    """What a device knows of a session that carries on: what it sent in this epoch, and what it was answered."""

    table: Table
    tokens: list[int]
    epoch: int = 0

    def send(self, drafted: list[int], start: int, *, new_epoch: bool = False) -> None:
        self.epoch += new_epoch
        self.tokens[start:] = drafted
        self.table.draft(drafted, start, self.epoch)

    def read(self) -> list[Verdict]:
        verdicts = [frame for frame in self.table.settle() if isinstance(frame, Verdict)]
        for verdict in verdicts:
            if verdict.correction is not None and verdict.epoch == self.epoch:
                self.tokens[verdict.correction.position] = verdict.correction.tokens[0]
        return verdicts


def test_the_cloud_carries_on_behind_a_correction() -> None:
    table = Table(write_until=3, carry_on=True)
    table.settle()
    device = Device(table, OWN[:3])
    device.send([OWN[3], wrong(4), OWN[5], wrong(6), OWN[7]], 3)
    verdicts = device.read()
    assert [plain(verdict) for verdict in verdicts] == [
        (0, 5, Correction(4, (OWN[4],), 0), False),
        (0, 7, Correction(6, (OWN[6],), 0), False),
        (0, 8, None, False),
    ]
    assert [verdict.partial for verdict in verdicts] == [True, True, False]
    assert device.tokens == OWN[:8]
    device.send(OWN[8:T], 8)  # the epoch goes on
    assert [plain(verdict) for verdict in device.read()] == [(0, T, None, False)]
    table.session.receive(Finish())
    (summary,) = table.settle()
    assert isinstance(summary, Summary)
    assert (summary.num_drafts, summary.num_stale_drafts, summary.num_asked) == (2, 0, 5 + T - 8)
    assert summary.num_corrections == 2
    assert summary.cost.num_passes == len(table.runner.passes)


@pytest.mark.parametrize(("row_cost", "num_rows"), [(0.0, [9]), (0.05, [9]), (0.2, [5, 4]), (1.0, [1, 4, 4])])
def test_a_pass_takes_up_as_many_questions_as_rows_are_cheap(row_cost: float, num_rows: list[int]) -> None:
    """Nothing is known of this device: half of its tokens will stand, a quarter two in a row."""
    table = Table(write_until=3, carry_on=True, limits=Limits(max_block_tokens=9, max_in_flight=3))
    table.settle()
    table.draft(OWN[3:T], 3, asked=[0, 4, 8])
    seen = []
    while table.session.has_work:
        segment = table.session.next_segment(row_cost)
        seen.append(segment.num_rows)
        table.session.absorb(segment, table.runner.extend([segment])[0], 0, 7)
    assert seen == num_rows


def test_a_correction_of_the_last_token_ends_the_draft() -> None:
    table = Table(write_until=3, carry_on=True)
    table.settle()
    table.draft([wrong(3)], 3)
    (verdict,) = table.settle()
    assert plain(verdict) == (0, 4, Correction(3, (OWN[3],), 0), False)
    assert isinstance(verdict, Verdict)
    assert not verdict.partial


def test_a_new_epoch_takes_back_what_was_sent() -> None:
    table = Table(write_until=3, carry_on=True)
    table.settle()
    table.draft(OWN[3:5], 3)
    table.step()
    table.draft([0, 0], 5)
    table.draft([0], 7)
    table.draft(OWN[6:8], 6, epoch=1, asked=[1])  # not judged: position 5 was taken for decided
    frames = table.settle()
    assert [plain(frame)[3] for frame in frames] == [False, True, True, False]
    table.draft(OWN[4:T][:8], 4, epoch=2)
    assert [plain(frame)[2] for frame in table.settle()] == [None]
    table.draft(OWN[3:T][:8], 3, epoch=3)  # back to the first draft's first token
    assert [plain(frame) for frame in table.settle()] == [(3, 11, None, False)]


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"epoch": 2}, ProtocolError, r"^draft\.epoch: 2 has not begun; the session is in epoch 0"),
        ({"epoch": 1, "start": 2}, InvalidRequest, r"^draft\.block\.start: 2; epochs begin in \[3, 5\]"),
        ({"epoch": 1, "start": 6}, InvalidRequest, r"^draft\.block\.start: 6; epochs begin in \[3, 5\]"),
        ({"start": 4}, InvalidRequest, r"^draft\.block\.start: 4, but the next token of this epoch is 5"),
        ({"tokens": [1, 1], "features": {0: 1.0}, "asked": [1]}, InvalidRequest, "takes no features; send none"),
    ],
)
def test_bad_drafts_where_the_cloud_carries_on(changes: dict[str, Any], error: type[CiarError], sentence: str) -> None:
    table = Table(write_until=3, carry_on=True)
    table.settle()
    table.draft(OWN[3:5], 3)
    with pytest.raises(error, match=sentence):
        table.draft(**({"tokens": [1], "start": 5, "epoch": 0} | changes))


def test_random_drafts_end_in_the_clouds_own_picture_where_it_carries_on() -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        prefix = int(rng.integers(0, T))
        table = Table(write_until=prefix, carry_on=True)
        table.settle()
        device = Device(table, OWN[:prefix])
        while len(device.tokens) < T or device.tokens != OWN:
            known = next((t for t in range(prefix, len(device.tokens)) if device.tokens[t] != OWN[t]), None)
            start = len(device.tokens)
            if known is not None or start == T or (start > prefix and rng.random() < 0.3):
                start, new_epoch = int(rng.integers(prefix, start + 1)) if known is None else known, True
            else:
                new_epoch = False
            if start == T:
                continue
            end = int(rng.integers(start + 1, min(T, start + 8) + 1))
            drafted = [OWN[t] if rng.random() < 0.7 else int(rng.integers(V)) for t in range(start, end)]
            device.send(drafted, start, new_epoch=new_epoch)
            verdicts = device.read()
            assert [verdict.partial for verdict in verdicts] == [True] * (len(verdicts) - 1) + [False]
            assert device.tokens == OWN[: len(device.tokens)]


def test_random_drafts_end_in_the_clouds_own_picture() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        prefix = int(rng.integers(0, T))
        table = Table(write_until=prefix)
        table.settle()
        tokens, epoch = list(OWN[:prefix]), 0
        while len(tokens) < T:
            sent: list[list[int]] = []
            for _ in range(rng.integers(1, 4)):
                start = len(tokens) + sum(map(len, sent))
                if start == T:
                    break
                end = int(rng.integers(start + 1, min(T, start + 8) + 1))
                drafted = [OWN[t] if rng.random() < 0.7 else int(rng.integers(V)) for t in range(start, end)]
                table.draft(drafted, start, epoch)
                sent.append(drafted)
            for drafted, verdict in zip(sent, table.settle(), strict=True):
                assert isinstance(verdict, Verdict)
                if verdict.stale:
                    continue
                end = verdict.correction.position if verdict.correction else verdict.verified_through
                tokens += drafted[: end - len(tokens)]
                if verdict.correction:
                    tokens += verdict.correction.tokens
                    epoch = verdict.correction.next_epoch
                assert len(tokens) == verdict.verified_through
        assert tokens == OWN


def test_resuming_goes_on_where_the_history_ends() -> None:
    history = Block(0, np.array(OWN[:6]), np.zeros(6, np.bool_), np.zeros(6, np.bool_), np.zeros((0, R), np.float16))
    table = Table(write_until=3, history=history)
    assert table.settle() == [Opened("s", (1, 2)), Written(6, ())]
    table.draft(OWN[6:T], 6)
    assert [plain(frame) for frame in table.settle()] == [(0, T, None, False)]


def test_resuming_keeps_the_features_of_the_history() -> None:
    tokens, features = np.array([4, 5]), np.array([[0.0] * R, [1.5] * R], np.float32)
    featured = np.array([False, True])
    history = Block(0, tokens, np.zeros(2, np.bool_), featured, features[featured].astype(np.float16))
    table = Table(write_until=0, history=history)
    table.settle()
    table.draft([int(law(CONDITION, tokens, features).argmax())], 2)
    assert [plain(frame) for frame in table.settle()] == [(0, 3, None, False)]


def test_resuming_inside_the_prefix_writes_the_rest() -> None:
    history = Block(0, np.array(OWN[:2]), np.zeros(2, np.bool_), np.zeros(2, np.bool_), np.zeros((0, R), np.float16))
    table = Table(write_until=5, history=history)
    _, prefix = table.settle()
    assert isinstance(prefix, Written)
    assert (prefix.start, list(prefix.tokens)) == (2, OWN[2:5])
    table.session.receive(Finish())
    (summary,) = table.settle()
    assert isinstance(summary, Summary)
    assert summary.num_prefix_tokens == 3


def test_writing_alone_comes_in_chunks_without_opened_and_summary() -> None:
    table = Table(write_until=T, chunk=5, collaborative=False)
    frames = table.settle()
    assert [(frame.start, len(frame.tokens)) for frame in frames if isinstance(frame, Written)] == [
        (0, 5),
        (5, 5),
        (10, 2),
    ]
    assert [token for frame in frames for token in frame.tokens] == OWN  # type: ignore[union-attr]
    assert table.session.finished


def test_finish_sums_up() -> None:
    table = Table(write_until=3)
    table.settle()
    table.draft([OWN[3], wrong(4)], 3)
    table.draft([1], 5)
    table.settle()
    table.draft([7, *OWN[6:7]], 5, epoch=1, asked=[1])
    table.settle()
    table.session.receive(Finish())
    (summary,) = table.settle()
    assert isinstance(summary, Summary)
    assert (summary.num_prefix_tokens, summary.num_drafts, summary.num_stale_drafts) == (3, 3, 1)
    assert summary.num_asked == 3
    assert summary.cost.num_passes == 3 + 2
    assert table.session.finished
    assert not table.session.has_work


def test_finish_waits_for_the_drafts_before_it() -> None:
    table = Table(write_until=3)
    table.settle()
    table.draft(OWN[3:5], 3)
    table.session.receive(Finish())
    assert table.session.has_work
    verdict, summary = table.settle()
    assert isinstance(verdict, Verdict)
    assert isinstance(summary, Summary)
    with pytest.raises(ProtocolError, match="finished"):
        table.draft(OWN[5:7], 5)


def test_finish_right_after_opening() -> None:
    table = Table(write_until=0)
    table.session.receive(Finish())
    assert isinstance(table.settle()[-1], Summary)


def test_classic_judges_by_both_laws_and_goes_on_after_a_correction() -> None:
    """Laws of one token each: what the cloud is certain of stands, all else is replaced by what it is certain of."""
    table = Table(write_until=3, acceptance=Classic())
    table.settle()
    drafted = [*OWN[3:5], wrong(5)]
    certain = (60 * np.eye(V)[drafted]).astype(np.float16)
    table.draft(drafted, 3, laws=certain)
    assert [plain(frame) for frame in table.settle()] == [(0, 6, Correction(5, (OWN[5],), 1), False)]
    table.draft([4, OWN[7]], 6, epoch=1, asked=[1], laws=certain[:1])  # one law for the one that is asked about
    assert len(table.settle()) == 1


@pytest.mark.parametrize(
    ("acceptance", "laws", "sentence"),
    [
        (Classic(), None, r"^draft\.block\.laws: the rule classic needs the law of every asked token"),
        (Coupled(), np.zeros((1, V), np.float16), r"^draft\.block\.laws: the rule coupled needs none"),
    ],
)
def test_laws_come_with_the_rules_that_need_them(
    acceptance: Acceptance, laws: NDArray[np.float16] | None, sentence: str
) -> None:
    table = Table(write_until=3, acceptance=acceptance)
    table.settle()
    with pytest.raises(InvalidRequest, match=sentence):
        table.draft([1], 3, laws=laws)


def test_lantern_needs_distances_between_tokens() -> None:
    with pytest.raises(InvalidRequest, match="no distances"):
        Table(acceptance=Lantern(1, 0.1))


# ---- trees ---------------------------------------------------------------------------------------------------------


def tree(tokens: list[int], parents: list[int], start: int, epoch: int = 0) -> TreeDraft:
    return TreeDraft(epoch, start, np.array(tokens, np.int64), np.array(parents, np.int64))


def test_a_tree_is_answered_with_the_clouds_own_tokens() -> None:
    table = Table(write_until=3)
    table.settle()
    # wrong | own 3 → wrong | own 4 → own 5, with the right path behind the wrong ones
    nodes = [wrong(3), OWN[3], wrong(4), OWN[4], OWN[5]]
    table.session.receive(tree(nodes, [-1, -1, 1, 1, 3], 3))
    assert [plain(frame) for frame in table.settle()] == [(0, 7, Correction(3, tuple(OWN[3:7]), 1), False)]
    assert len(table.runner.passes) == 3 + 1
    table.session.receive(tree([wrong(7)], [-1], 7, epoch=1))
    assert [plain(frame) for frame in table.settle()] == [(1, 8, Correction(7, (OWN[7],), 2), False)]
    table.draft(OWN[8:T], 8, epoch=2)  # a chain may follow
    assert [plain(frame) for frame in table.settle()] == [(2, T, None, False)]
    table.session.receive(Finish())
    (summary,) = table.settle()
    assert isinstance(summary, Summary)
    assert (summary.num_drafts, summary.num_asked, summary.num_corrections) == (3, 5 + 1 + 4, 1)


def test_a_tree_from_the_very_start_to_the_very_end() -> None:
    table = Table(write_until=0, limits=Limits(max_block_tokens=T))
    table.settle()
    table.session.receive(tree(OWN, [node - 1 for node in range(T)], 0))
    assert [plain(frame) for frame in table.settle()] == [(0, T, Correction(0, tuple(OWN), 1), False)]


def test_a_tree_after_a_history_with_features() -> None:
    tokens, features = np.array([4, 5]), np.array([[0.0] * R, [1.5] * R], np.float32)
    featured = np.array([False, True])
    history = Block(0, tokens, np.zeros(2, np.bool_), featured, features[featured].astype(np.float16))
    table = Table(write_until=0, history=history)
    table.settle()
    first = int(law(CONDITION, tokens, features).argmax())
    then = int(law(CONDITION, np.append(tokens, first), np.pad(features, ((0, 1), (0, 0)))).argmax())
    table.session.receive(tree([(first + 1) % V, first], [-1, -1], 2))
    assert [plain(frame) for frame in table.settle()] == [(0, 4, Correction(2, (first, then), 1), False)]


def test_random_trees_end_in_the_clouds_own_picture() -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        start = int(rng.integers(0, T))
        table = Table(write_until=start)
        table.settle()
        drawn, epoch = list(OWN[:start]), 0
        while len(drawn) < T:
            start, nodes, parents = len(drawn), [], []
            taken: set[tuple[int, int]] = set()
            depth: list[int] = []
            for _ in range(int(rng.integers(1, min(8, T - start) + 1))):
                parent = int(rng.integers(-1, len(nodes)))
                level = 0 if parent < 0 else depth[parent] + 1
                token = OWN[start + level] if rng.random() < 0.6 else int(rng.integers(V))
                if (parent, token) not in taken:
                    taken.add((parent, token))
                    nodes.append(token)
                    parents.append(parent)
                    depth.append(level)
            table.session.receive(tree(nodes, parents, start, epoch))
            (verdict,) = table.settle()
            assert isinstance(verdict, Verdict)
            assert verdict.correction is not None
            drawn += verdict.correction.tokens
            epoch = verdict.correction.next_epoch
            assert verdict.verified_through == len(drawn)
        assert drawn == OWN


@pytest.mark.parametrize(
    ("draft", "error", "sentence"),
    [
        (tree([1], [-1], 3, epoch=1), ProtocolError, r"tree\.epoch: 1 has not begun"),
        (tree([1], [-1], 4), InvalidRequest, r"tree\.start: 4, but the next .* is 3"),
        (tree([], [], 3), InvalidRequest, r"tree\.tokens: 0 nodes; send 1 to 8"),
        (tree([1] * 9, list(range(-1, 8)), 3), InvalidRequest, r"tree\.tokens: 9 nodes; send 1 to 8"),
    ],
)
def test_a_bad_tree_is_refused_and_changes_nothing(draft: TreeDraft, error: type[CiarError], sentence: str) -> None:
    table = Table(write_until=3)
    table.settle()
    with pytest.raises(error, match=sentence):
        table.session.receive(draft)
    assert not table.session.has_work
    table.draft(OWN[3:5], 3)
    assert [plain(frame) for frame in table.settle()] == [(0, 5, None, False)]


def test_a_tree_has_no_more_nodes_than_the_picture_has_room_for() -> None:
    table = Table(write_until=T - 2)
    table.settle()
    with pytest.raises(InvalidRequest, match=r"tree\.tokens: 3 nodes; send 1 to 2"):
        table.session.receive(tree([1, 2, 3], [-1, -1, -1], T - 2))


def test_a_tree_and_another_draft_do_not_wait_together() -> None:
    table = Table(write_until=3)
    table.settle()
    table.session.receive(tree([1], [-1], 3))
    with pytest.raises(ProtocolError, match="a tree is unanswered"):
        table.draft([1], 3)
    with pytest.raises(ProtocolError, match="another draft is unanswered"):
        table.session.receive(tree([1], [-1], 3))
    table.session.receive(Finish())
    verdict, summary = table.settle()
    assert isinstance(verdict, Verdict)
    assert isinstance(summary, Summary)


def test_a_stale_tree_is_answered_as_stale() -> None:
    table = Table(write_until=3)
    table.settle()
    table.draft([wrong(3)], 3)
    table.settle()
    table.session.receive(tree([1], [-1], 4))
    assert [plain(frame) for frame in table.settle()] == [(0, 4, None, True)]


def test_only_the_coupled_rule_judges_trees() -> None:
    table = Table(write_until=3, acceptance=Classic())
    table.settle()
    with pytest.raises(InvalidRequest, match="the rule classic judges no trees"):
        table.session.receive(tree([1], [-1], 3))


# ---- protocol errors -----------------------------------------------------------------------------------------------


def test_drafts_before_the_prefix_is_written() -> None:
    table = Table(write_until=3)
    with pytest.raises(ProtocolError, match="wait for the prefix"):
        table.draft([1], 3)
    table.step()
    with pytest.raises(ProtocolError, match="wait for the prefix"):
        table.session.receive(Finish())


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"tokens": [1], "start": 3, "epoch": 1}, ProtocolError, r"draft\.epoch: 1 has not begun"),
        ({"tokens": [1], "start": 4}, InvalidRequest, r"draft\.block\.start: 4, but the next .* is 3"),
        ({"tokens": [1], "start": 2}, InvalidRequest, r"draft\.block\.start: 2"),
        ({"tokens": [], "start": 3}, InvalidRequest, r"draft\.block\.tokens: 0 tokens; send 1 to 8"),
        ({"tokens": [1] * 9, "start": 3}, InvalidRequest, r"draft\.block\.tokens: 9 tokens; send 1 to 8"),
        ({"tokens": [1, 1], "start": 3, "asked": [0]}, InvalidRequest, r"asked_mask: the last token"),
    ],
)
def test_a_bad_draft_is_refused_and_changes_nothing(
    fields: dict[str, Any], error: type[CiarError], sentence: str
) -> None:
    table = Table(write_until=3)
    table.settle()
    with pytest.raises(error, match=sentence):
        table.draft(**fields)
    assert not table.session.has_work
    table.draft(OWN[3:5], 3)
    assert [plain(frame) for frame in table.settle()] == [(0, 5, None, False)]


def test_a_draft_past_the_picture() -> None:
    table = Table(write_until=8)
    table.settle()
    with pytest.raises(InvalidRequest, match=r"they end at 13, past the picture's 12"):
        table.draft([1] * 5, 8)


def test_too_many_unanswered_drafts() -> None:
    table = Table(write_until=3)
    table.settle()
    for start in (3, 4, 5):
        table.draft([OWN[start]], start)
    with pytest.raises(ProtocolError, match="more than 3 unanswered"):
        table.draft([OWN[6]], 6)


def test_failing_ends_the_session_with_the_error() -> None:
    table = Table(write_until=3)
    error = InternalError("broken")
    table.session.fail(error)
    assert table.settle()[-1] is error
    assert not table.session.has_work
