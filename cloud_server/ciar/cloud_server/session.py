"""One picture in the making, as the cloud sees it: bookkeeping in plain Python, without torch and without gRPC.

In: an admitted request, the device's frames, logits of finished passes. Out: what the next pass should compute
(a Segment), and frames for the device. A session that only writes (the cloud alone) and one that answers drafts differ
in how far they write. Owned by the engine's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from ciar.cloud_server.batch import Segment
from ciar.cloud_server.pass_cost import DEFAULT_ROW_COST
from ciar.shared.errors import CiarError, InvalidRequest, ProtocolError
from ciar.shared.tree import follow
from ciar.shared.types import (
    COUPLED,
    Acceptance,
    Block,
    CloudFrame,
    Correction,
    Cost,
    Draft,
    Finish,
    Limits,
    Opened,
    Sampling,
    Summary,
    TreeDraft,
    Verdict,
    Written,
)
from ciar.shared.verification import Nearest, Rule, make_rule, verify, walk

Reply = Callable[[CloudFrame | CiarError], None]
"""Where a session's frames go; called from the engine's thread. An error ends the session."""


@dataclass(frozen=True, slots=True, eq=False)
class Admitted:
    """A request that has been checked against the bundle."""

    session_id: str
    condition: NDArray[np.int64]
    """(C,) phrase ids."""
    sampling: Sampling
    history: Block
    """What is already decided, from position 0."""
    write_until: int
    """The cloud alone writes up to this position: m for a collaboration, T for a whole picture."""
    chunk: int
    """Number of tokens in one Written frame, at most."""
    collaborative: bool
    acceptance: Acceptance = COUPLED
    """How asked tokens are judged."""
    carry_on: bool = False
    """Whether a correction leaves the drafts behind it standing; then the device begins epochs."""


RuleOf = Callable[[Admitted], Rule]
"""Which acceptance rule decides the tokens of a session."""


def own_rule(admitted: Admitted, nearest: Nearest | None = None) -> Rule:
    """The rule that the request asks for; nearest: distances between tokens, for a rule that needs them."""
    return make_rule(admitted.acceptance, admitted.sampling, nearest)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A draft without its answer."""

    draft: Draft
    arrived_ns: int
    asked: NDArray[np.int64]
    """(w,) positions that it asks about, ascending."""


class Session:
    """The state of one picture and the rules of its conversation."""

    def __init__(
        self,
        admitted: Admitted,
        slot: int,
        reply: Reply,
        *,
        num_tokens: int,
        feature_dim: int,
        limits: Limits,
        rule_of: RuleOf = own_rule,
    ) -> None:
        self.id = admitted.session_id
        self._admitted = admitted
        self._slot = slot
        self._limits = limits
        self._reply = reply
        self._rule = rule_of(admitted)
        history = admitted.history
        self._tokens = np.zeros(num_tokens, np.int64)
        self._tokens[: history.end] = history.tokens
        self._features = np.zeros((num_tokens, feature_dim), np.float32)
        self._features[: history.end][history.featured] = history.features
        self._known = history.end  # tokens that the session holds, decided or drafted
        self._decided = history.end  # of these, the first so many are decided (carrying on: judged)
        self._cached = 0  # input rows in the KV cache
        self._epoch = 0
        self._drafts: deque[_Waiting] = deque()
        self._tree: tuple[TreeDraft, int] | None = None  # with its arrival (ns); there are no drafts beside a tree
        self._unsent = Written(history.end, ())
        self._unbilled = Cost()  # passes since the last verdict, where the cloud carries on
        self._near_ties: tuple[int, ...] = ()  # the same
        self._first = max(history.end, admitted.write_until)  # the first position that a draft may have
        self._queued_since = perf_counter_ns()
        self._summary = Summary(num_prefix_tokens=max(0, admitted.write_until - history.end))
        self._finishing = False
        self.finished = False
        if admitted.collaborative:
            reply(Opened(self.id, tuple(admitted.condition.tolist())))
        if not self._writing:
            self._end_of_writing()

    @property
    def _writing(self) -> bool:
        return self._known < self._admitted.write_until

    # ---- from the device -------------------------------------------------------------------------------------------

    def receive(self, frame: Draft | TreeDraft | Finish) -> None:
        """Take a frame. Raises ProtocolError or InvalidRequest, which end this session and touch no other."""
        if self.finished or self._finishing:
            raise ProtocolError("frame: the session is finished; open a new one")
        if self._writing:
            raise ProtocolError("frame: wait for the prefix before sending drafts")
        if isinstance(frame, Finish):
            self._finishing = True
            self._finish_if_answered()
        elif frame.epoch < self._epoch:
            self._answer_stale(frame)
        elif isinstance(frame, TreeDraft):
            self._check_tree(frame)
            self._tree = frame, perf_counter_ns()
        else:
            self._check(frame)
            if frame.epoch > self._epoch:
                self._begin_epoch(frame.block.start)
            block = frame.block
            self._drafts.append(_Waiting(frame, perf_counter_ns(), block.start + block.asked.nonzero()[0]))
            self._append(block)

    def _finish_if_answered(self) -> None:
        """The summary, once the device wants no more and every draft has its verdict."""
        if self._finishing and not self._drafts and self._tree is None:
            self.finished = True
            self._reply(self._summary)

    def _check(self, draft: Draft) -> None:
        block, num_tokens, carry_on = draft.block, len(self._tokens), self._admitted.carry_on
        if draft.epoch > self._epoch + carry_on:
            raise ProtocolError(f"draft.epoch: {draft.epoch} has not begun; the session is in epoch {self._epoch}")
        begins = draft.epoch > self._epoch
        if begins and not self._first <= block.start <= self._known:
            raise InvalidRequest(f"draft.block.start: {block.start}; epochs begin in [{self._first}, {self._known}]")
        if not begins and block.start != self._known:
            raise InvalidRequest(f"draft.block.start: {block.start}, but the next token of this epoch is {self._known}")
        if not 0 < len(block.tokens) <= self._limits.max_block_tokens:
            raise InvalidRequest(
                f"draft.block.tokens: {len(block.tokens)} tokens; send 1 to {self._limits.max_block_tokens}"
            )
        if block.end > num_tokens:
            raise InvalidRequest(f"draft.block.tokens: they end at {block.end}, past the picture's {num_tokens}")
        if not block.asked[-1]:
            raise InvalidRequest("draft.block.asked_mask: the last token of a draft must be asked about")
        if (block.laws is not None) != self._admitted.acceptance.needs_laws:
            wanted = "needs the law of every asked token" if block.laws is None else "needs none; leave them out"
            raise InvalidRequest(f"draft.block.laws: the rule {self._admitted.acceptance} {wanted}")
        if carry_on and block.featured.any():
            raise InvalidRequest("draft.block.featured_mask: a session that carries on takes no features; send none")
        if self._tree is not None:
            raise ProtocolError("draft: a tree is unanswered; wait for its verdict")
        if not begins and len(self._drafts) >= self._limits.max_in_flight:
            raise ProtocolError(f"draft: more than {self._limits.max_in_flight} unanswered drafts")

    def _check_tree(self, tree: TreeDraft) -> None:
        if tree.epoch > self._epoch:
            raise ProtocolError(f"tree.epoch: {tree.epoch} has not begun; the session is in epoch {self._epoch}")
        if self._drafts or self._tree is not None:
            raise ProtocolError("tree: another draft is unanswered; wait for its verdict")
        if self._admitted.acceptance != COUPLED:
            raise InvalidRequest(f"tree: the rule {self._admitted.acceptance} judges no trees; open with none")
        if self._admitted.carry_on:
            raise InvalidRequest("tree: a session that carries on has none; open without carry_on")
        if tree.start != self._known:
            raise InvalidRequest(f"tree.start: {tree.start}, but the next token of this epoch is {self._known}")
        most = min(self._limits.max_block_tokens, len(self._tokens) - self._known)
        if not 0 < len(tree.tokens) <= most:
            raise InvalidRequest(f"tree.tokens: {len(tree.tokens)} nodes; send 1 to {most}")

    def _append(self, block: Block) -> None:
        span = slice(block.start, block.end)
        self._tokens[span] = block.tokens
        features = self._features[span]
        features[:] = 0
        features[block.featured] = block.features
        self._known = block.end

    def _begin_epoch(self, start: int) -> None:
        """The device takes back what it had sent from `start` on."""
        while self._drafts:
            self._answer_stale(self._drafts.popleft().draft)
        self._known = start
        self._decided = min(self._decided, start)
        last_row = len(self._admitted.condition) + start - 1  # it predicts the token at `start`: it is wanted again
        self._cached = min(self._cached, last_row) if start else 0
        self._epoch += 1

    def _answer_stale(self, draft: Draft | TreeDraft) -> None:
        self._summary = replace(
            self._summary,
            num_drafts=self._summary.num_drafts + 1,
            num_stale_drafts=self._summary.num_stale_drafts + 1,
        )
        self._reply(Verdict(draft.epoch, self._decided, stale=True))

    # ---- to and from the engine ------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Whether `next_segment` would return one."""
        return not self.finished and (self._writing or bool(self._drafts) or self._tree is not None)

    def next_segment(self, row_cost: float = DEFAULT_ROW_COST) -> Segment:
        """What the next pass should compute: one more token of the cloud's own, a tree, or the drafts that wait.

        row_cost: what a row more costs, over what a pass costs whatever its rows.
        """
        if self._tree is not None:
            return self._tree_segment(self._tree[0])
        if self._writing:
            wanted = np.array([self._known])
        else:
            wanted = np.concatenate([waiting.asked for waiting in self._drafts])
            if self._admitted.carry_on:
                wanted = self._worth_judging(wanted[wanted >= self._decided], row_cost)
        return self._segment(int(wanted[-1]), wanted)

    def _segment(self, end: int, wanted: NDArray[np.int64]) -> Segment:
        """All rows that are not in the cache, up to that of the token before `end`."""
        first = max(0, self._cached - len(self._admitted.condition))
        features = self._features[first:end]
        return Segment(
            slot=self._slot,
            guidance=self._admitted.sampling.guidance,
            condition=self._admitted.condition,
            start=self._cached,
            tokens=self._tokens[first:end],
            features=features if features.any() else None,
            wanted=wanted,
        )

    def _tree_segment(self, tree: TreeDraft) -> Segment:
        """What is missing before the tree, and the tree's nodes behind it, in the rows of the positions that follow."""
        num_nodes = len(tree.tokens)
        trunk = self._segment(tree.start, np.arange(tree.start, tree.start + num_nodes + 1))
        features = trunk.features
        if features is not None:
            features = np.pad(features, ((0, num_nodes), (0, 0)))
        return replace(
            trunk, tokens=np.concatenate([trunk.tokens, tree.tokens]), features=features, parents=tree.parents
        )

    def absorb(self, segment: Segment, logits: NDArray[np.float32], started_ns: int, forward_ns: int) -> None:
        """Take the logits (w, V) of the wanted positions and answer what they decide."""
        self._cached = segment.end
        if self._tree is not None:
            self._walk(*self._tree, logits, started_ns, forward_ns)
        elif self._writing:
            self._write(logits[0], Cost(forward_ns, started_ns - self._queued_since, 1))
        elif self._admitted.carry_on:
            self._judge_and_carry_on(segment, logits, started_ns, forward_ns)
        else:
            self._judge(segment, logits, started_ns, forward_ns)

    def _write(self, logits: NDArray[np.float32], cost: Cost) -> None:
        position = self._known
        own = self._rule(logits, position, -1)
        self._tokens[position] = own.token
        self._known = self._decided = position + 1
        unsent = self._unsent
        self._unsent = Written(
            unsent.start,
            (*unsent.tokens, own.token),
            (*unsent.near_ties, position) if own.is_near_tie else unsent.near_ties,
            unsent.cost + cost,
        )
        self._queued_since = perf_counter_ns()
        if len(self._unsent.tokens) == self._admitted.chunk or not self._writing:
            self._end_of_writing()

    def _end_of_writing(self) -> None:
        """Send what has been written."""
        self._summary = replace(self._summary, cost=self._summary.cost + self._unsent.cost)
        self._reply(self._unsent)
        self._unsent = Written(self._known, ())
        if not self._writing and not self._admitted.collaborative:
            self.finished = True

    def _judge(self, segment: Segment, logits: NDArray[np.float32], started_ns: int, forward_ns: int) -> None:
        """Answer the drafts that were in the pass, in order; a correction makes the later ones stale."""
        row = dict(zip(segment.wanted.tolist(), logits, strict=True))  # position -> (V,)
        num_passes = 1  # one pass however many drafts it answers
        while self._drafts:
            waiting = self._drafts.popleft()
            draft, block = waiting.draft, waiting.draft.block
            if draft.epoch < self._epoch:
                self._answer_stale(draft)
                continue
            cost = Cost(forward_ns * num_passes, max(0, started_ns - waiting.arrived_ns), num_passes)
            num_passes = 0
            asked = waiting.asked.tolist()
            outcome = verify(self._rule, row.__getitem__, asked, self._tokens.item, device_logits_of(block))
            correction = None
            if outcome.corrected_at is not None and outcome.token is not None:
                correction = self._correct(outcome.corrected_at, outcome.token)
            self._decided = self._known if correction else block.end
            self._reply(Verdict(draft.epoch, self._decided, correction, near_ties=outcome.near_ties, cost=cost))
            # The device waits for the verdict, and for the account only at the end.
            self._summary = replace(
                self._summary,
                cost=self._summary.cost + cost,
                num_drafts=self._summary.num_drafts + 1,
                num_asked=self._summary.num_asked + len(asked),
                num_corrections=self._summary.num_corrections + (correction is not None),
            )
        self._finish_if_answered()

    def _worth_judging(self, questions: NDArray[np.int64], row_cost: float) -> NDArray[np.int64]:
        """The first of these positions (n,): those that a pass had better take up at once (ours).

        With one more question, if all before it are confirmed, a pass is saved; else the rows up to it are for nothing,
        since they come again behind the correction.
        """
        confirmed_share = (self._summary.num_asked - self._summary.num_corrections + 1) / (self._summary.num_asked + 2)
        survival = confirmed_share ** np.arange(1, len(questions))  # (n − 1,) that all before a question are confirmed
        worth = survival > (1 - survival) * row_cost * np.diff(questions)
        return questions[: 1 + int(np.logical_and.accumulate(worth).sum())]

    def _judge_and_carry_on(
        self, segment: Segment, logits: NDArray[np.float32], started_ns: int, forward_ns: int
    ) -> None:
        """Answer the questions of the pass up to the first correction; the next pass goes on behind it."""
        row = dict(zip(segment.wanted.tolist(), logits, strict=True))  # position -> (V,)
        waited_ns = started_ns - max(self._drafts[0].arrived_ns, self._queued_since)
        self._unbilled += Cost(forward_ns, max(0, waited_ns), 1)
        while self._drafts:
            draft, block = self._drafts[0].draft, self._drafts[0].draft.block
            asked = [position for position in self._drafts[0].asked.tolist() if position in row]
            if not asked:
                break
            outcome = verify(self._rule, row.__getitem__, asked, self._tokens.item)
            correction = None
            if outcome.corrected_at is not None and outcome.token is not None:
                correction = self._correct(outcome.corrected_at, outcome.token)
            self._decided = 1 + (asked[-1] if correction is None else correction.position)
            self._near_ties += outcome.near_ties
            answered = self._decided == block.end
            if answered:
                self._drafts.popleft()
            if answered or correction is not None:
                self._send_part(Verdict(draft.epoch, self._decided, correction, partial=not answered))
            self._summary = replace(
                self._summary,
                num_drafts=self._summary.num_drafts + answered,
                num_asked=self._summary.num_asked + sum(position < self._decided for position in asked),
                num_corrections=self._summary.num_corrections + (correction is not None),
            )
            if correction is not None or not answered:
                break
        self._queued_since = perf_counter_ns()
        self._finish_if_answered()

    def _send_part(self, verdict: Verdict) -> None:
        """A verdict, with all that has come up since the last one."""
        self._summary = replace(self._summary, cost=self._summary.cost + self._unbilled)
        self._reply(replace(verdict, near_ties=self._near_ties, cost=self._unbilled))
        self._unbilled, self._near_ties = Cost(), ()

    def _walk(
        self, tree: TreeDraft, arrived_ns: int, logits: NDArray[np.float32], started_ns: int, forward_ns: int
    ) -> None:
        """Answer a tree with the cloud's own tokens; the rows of those that were nodes are computed anew next time."""
        self._tree = None
        found = walk(self._rule, lambda node: logits[node + 1], tree, len(self._tokens))
        end = tree.start + len(found.tokens)
        self._tokens[tree.start : end] = found.tokens
        self._features[tree.start : end] = 0
        self._known = self._decided = end
        self._cached = len(self._admitted.condition) + tree.start
        self._epoch += 1
        _, missed = follow(found.tokens, tree.tokens.tolist(), tree.parents.tolist())
        cost = Cost(forward_ns, max(0, started_ns - arrived_ns), 1)
        self._summary = replace(
            self._summary,
            cost=self._summary.cost + cost,
            num_drafts=self._summary.num_drafts + 1,
            num_asked=self._summary.num_asked + len(tree.tokens),
            num_corrections=self._summary.num_corrections + missed,
        )
        correction = Correction(tree.start, found.tokens, self._epoch)
        self._reply(Verdict(tree.epoch, end, correction, near_ties=found.near_ties, cost=cost))
        self._finish_if_answered()

    def _correct(self, position: int, token: int) -> Correction:
        """Put the cloud's token in the place of the drafted one.

        What is behind it is void and a new epoch begins; where the cloud carries on, it stands.
        """
        self._tokens[position] = token
        self._cached = min(self._cached, len(self._admitted.condition) + position)
        if not self._admitted.carry_on:
            self._known = position + 1
            self._epoch += 1
        return Correction(position, (token,), self._epoch)

    def fail(self, error: CiarError) -> None:
        """End the session with an error."""
        self.finished = True
        self._reply(error)


def device_logits_of(block: Block) -> Callable[[int], NDArray[np.float32]] | None:
    """The device's logits (V,) at an asked position of the block; None if they were not sent."""
    if (laws := block.laws) is None:
        return None
    row = {int(position): index for index, position in enumerate(block.start + np.flatnonzero(block.asked))}
    return lambda position: laws[row[position]].astype(np.float32)
