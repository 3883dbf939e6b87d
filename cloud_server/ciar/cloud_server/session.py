"""One picture in the making, as the cloud sees it: bookkeeping in plain Python, without torch and without gRPC.

In: an admitted request, the device's drafts, logits of finished passes. Out: what the next pass should compute (a
Segment), and frames for the device.

    0 ─── verified ─── verified_end ─── drafted ─── drafted_end ─── the cloud's own guesses ─── T

A pass samples every position of its window anew. Up to and with the first sample that differs from its guess they are
verified; behind it, every position takes the sample as its new guess. Where everything is verified the cloud goes on
past `drafted_end` with guesses of its own: a picture without any draft, the prefix of a collaboration, and drafts that
are first guesses are one code path. Owned by the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from ciar.cloud_server.batch import Segment
from ciar.cloud_server.window import MAX_REFRESHES, Origin, WindowPolicy
from ciar.shared.errors import CiarError, InvalidRequest, ProtocolError
from ciar.shared.sampling import NEAR_TIE_TOLERANCE, Noise, sample_rows
from ciar.shared.types import (
    CloudFrame,
    Cost,
    Draft,
    Finish,
    Limits,
    Opened,
    Sampling,
    Summary,
    Tokens,
    Verdict,
    Verify,
)
from ciar.shared.verification import count_verified

Reply = Callable[[CloudFrame | CiarError], None]
"""Where a session's frames go; called from the engine's thread. An error ends the session."""

WAIT_ROW_COST = 0.1
"""Where a row costs less, in parts of a pass without rows, going on behind a rejection is always right (ours)."""

WAIT_SHARE = 0.3
"""Above that cost, waiting for the device is right if its answer comes within this part of a pass (ours)."""

MAX_ROWS_A_TOKEN = 8
"""Rows that a picture with marked tokens may take, in multiples of T, before the cloud waits all the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Admitted:
    """A request that has been checked against the bundle."""

    session_id: str
    condition: NDArray[np.int64]
    """(C,) phrase ids."""
    sampling: Sampling
    verify: Verify
    num_prefix_tokens: int
    max_window: int
    """Most positions verified in one pass, ≥ 1."""
    history: Tokens
    """(h,) final tokens from position 0 on."""


class Session:
    """The state of one picture and the rules of its conversation."""

    def __init__(
        self,
        admitted: Admitted,
        slot: int,
        reply: Reply,
        *,
        num_tokens: int,
        vocab_size: int,
        chunk: int,
        limits: Limits,
        policy: WindowPolicy,
    ) -> None:
        """chunk: verified tokens of one Verdict, at least, where the device does not wait for them."""
        self.id = admitted.session_id
        self.finished = False
        self._admitted, self._slot, self._reply = admitted, slot, reply
        self._chunk, self._limits, self._policy = chunk, limits, policy
        self._noise = Noise(admitted.sampling.seed, vocab_size)
        start = len(admitted.history)
        self._tokens = np.zeros(num_tokens, np.int64)  # (T,)
        self._tokens[:start] = admitted.history
        self._verified_end = start
        self._drafted_end = start
        self._guessed_end = start
        """Every token before this position has a guess, if nothing better."""
        verifies_all = admitted.verify is Verify.ALL
        self._own_end = num_tokens if verifies_all else max(start, admitted.num_prefix_tokens)
        """Before this position everything is verified, and the cloud goes on by itself."""
        self._to_verify = np.arange(num_tokens) < self._own_end  # (T,)
        self._origins = np.full(num_tokens, Origin.NEIGHBOUR, np.int8)
        self._refreshes = np.zeros(num_tokens, np.int8)
        self._cached_end = 0  # input rows in the KV cache
        self._origin = Origin.NEIGHBOUR
        self.applied_seq = 0
        self._num_seen = 0
        self._waits_for = 0  # the device has seen so many Verdicts
        self._unsent: list[int] = []
        self._near_ties: list[int] = []
        self._cost = Cost()  # since the last Verdict
        self._ready_ns = perf_counter_ns()
        self._verdicts_ns: list[int] = []  # when each was sent
        self._answer_ns: int | None = None  # shortest time until a Draft counted one
        self._pass_ns = self._ended_ns = 0  # of the last pass
        self._summary = Summary()
        reply(Opened(self.id, tuple(admitted.condition.tolist())))

    @property
    def has_work(self) -> bool:
        """Whether there is anything to verify now."""
        return not self.finished and self._num_seen >= self._waits_for and self._verified_end < self._end

    @property
    def _end(self) -> int:
        """Positions before it can be verified."""
        return max(self._drafted_end, self._own_end)

    # ---- from the device -------------------------------------------------------------------------------------------

    def receive(self, frame: Draft | Finish, arrived_ns: int) -> None:
        """Take a frame; arrived_ns: when it came. Raises ProtocolError and InvalidRequest, which end this session."""
        if self.finished:
            raise ProtocolError("frame: the picture is finished; open a new stream")
        if isinstance(frame, Finish):
            self.finished = True
            self._reply(replace(self._summary, cost=self._summary.cost + self._cost))
            return
        if not self.has_work:
            self._ready_ns = arrived_ns
        self._check(frame)
        self.applied_seq = frame.seq
        if frame.num_verdicts > self._num_seen:
            answer_ns = arrived_ns - self._verdicts_ns[frame.num_verdicts - 1]
            self._answer_ns = min(answer_ns, self._answer_ns or answer_ns)
        self._num_seen = frame.num_verdicts
        self._summary = replace(self._summary, num_drafts=self._summary.num_drafts + 1)
        if self._admitted.verify is Verify.ALL:
            self._take_guesses(frame)
        else:
            self._take_draft(frame)

    def _check(self, draft: Draft) -> None:
        if draft.seq != self.applied_seq + 1:
            raise ProtocolError(f"draft.seq: {draft.seq} after {self.applied_seq}; count by one")
        if draft.num_verdicts > len(self._verdicts_ns):
            raise ProtocolError(f"draft.num_verdicts: {draft.num_verdicts}; {len(self._verdicts_ns)} were sent")
        verifies_all = self._admitted.verify is Verify.ALL
        first = 0 if verifies_all else self._own_end
        if not verifies_all and self._verified_end < self._own_end:
            raise ProtocolError("draft: wait for the prefix before sending drafts")
        last = max(first, self._drafted_end, self._verified_end if verifies_all else 0)
        if not first <= draft.start <= last:
            raise InvalidRequest(f"draft.start: {draft.start}; it must be in [{first}, {last}]")
        if draft.end > len(self._tokens):
            raise InvalidRequest(f"draft.tokens: they end at {draft.end}, past the picture's {len(self._tokens)}")

    def _take_guesses(self, draft: Draft) -> None:
        """Use drafted tokens as first guesses where nothing is verified, and nothing was refreshed."""
        start = max(draft.start, self._verified_end)
        span = slice(start, max(start, draft.end))
        better = self._refreshes[span] == 0
        self._tokens[span][better] = draft.tokens[span.start - draft.start :][better]
        self._origins[span][better] = Origin.DRAFT
        self._origin = Origin.DRAFT
        self._drafted_end = max(self._drafted_end, draft.end)
        self._guessed_end = max(self._guessed_end, draft.end)

    def _take_draft(self, draft: Draft) -> None:
        """Put the draft in the place of all that is held from its start on."""
        if draft.start < self._drafted_end:
            self._summary = replace(self._summary, num_forks=self._summary.num_forks + 1)
        span = slice(draft.start, draft.end)
        self._tokens[span] = draft.tokens
        self._to_verify[span] = draft.to_verify
        self._origins[span] = self._origin = Origin.DRAFT
        self._refreshes[span] = 0
        self._drafted_end = self._guessed_end = draft.end
        self._verified_end = min(self._verified_end, draft.start)
        self._cached_end = min(self._cached_end, len(self._admitted.condition) + draft.start)
        self._pass_unmarked()

    # ---- for the engine --------------------------------------------------------------------------------------------

    def next_segment(self, row_cost: float) -> Segment:
        """What the next pass shall compute for this session: as many positions as are worth their rows."""
        wanted = self._window(row_cost)
        num_condition = len(self._admitted.condition)
        start = min(self._cached_end, num_condition + int(wanted[0]) - 1)
        if start < num_condition:
            start = 0  # position 0 is predicted by the last row of the conditioning
        self._waits = self._admitted.verify is Verify.MARKED and self._should_wait(row_cost)
        return Segment(
            slot=self._slot,
            guidance=self._admitted.sampling.guidance,
            condition=self._admitted.condition,
            start=start,
            tokens=self._tokens[max(0, start - num_condition) : wanted[-1]].copy(),
            features=None,
            wanted=wanted,
        )

    def _window(self, row_cost: float) -> NDArray[np.int64]:
        """The next positions to be verified (n,), n ≥ 1; each has a guess."""
        first, end = self._verified_end, self._end
        rows_per_position = 1.0
        if self._verified_end >= self._own_end:
            rows_per_position = max(1.0, (end - first) / max(1, int(self._to_verify[first:end].sum())))
        most = min(self._admitted.max_window, self._policy.choose(self._origin, row_cost, rows_per_position))
        wanted = first + np.flatnonzero(self._to_verify[first:end])[:most]
        last = int(wanted[-1])
        if self._guessed_end <= last:  # the cloud's own first guess: the neighbour on the left
            self._tokens[self._guessed_end : last + 1] = self._tokens[self._guessed_end - 1] if self._guessed_end else 0
            self._guessed_end = last + 1
        return wanted

    def _should_wait(self, row_cost: float) -> bool:
        """Whether to wait for the device behind a rejection, which may change what it decided there."""
        num_rows = self._summary.cost.num_rows + self._cost.num_rows
        if num_rows > MAX_ROWS_A_TOKEN * len(self._tokens):
            return True
        return row_cost >= WAIT_ROW_COST and (self._answer_ns or self._pass_ns) < WAIT_SHARE * self._pass_ns

    def absorb(self, segment: Segment, logits: NDArray[np.float32], started_ns: int, forward_ns: int) -> None:
        """Take the logits (w, V) of the wanted positions: sample, verify, refresh, and tell the device."""
        wanted = segment.wanted
        samples, leads = sample_rows(logits, wanted.tolist(), self._admitted.sampling, self._noise)
        guesses = self._tokens[wanted]
        num_verified = count_verified(samples, guesses)
        verified, rejected = wanted[:num_verified], samples[num_verified - 1] != guesses[num_verified - 1]
        held = np.ones(num_verified, np.bool_)
        held[-1] = not rejected
        self._policy.observe(self._origins[verified], self._refreshes[verified], held)
        self._tokens[wanted] = samples
        refreshed = self._refreshes[wanted[num_verified:]] + 1
        self._refreshes[wanted[num_verified:]] = np.minimum(refreshed, MAX_REFRESHES)
        last = int(verified[-1])
        self._cached_end = len(self._admitted.condition) + last if rejected else segment.end
        self._near_ties += verified[leads[:num_verified] < NEAR_TIE_TOLERANCE].tolist()
        self._pass_ns, self._ended_ns = forward_ns, started_ns + forward_ns
        self._cost += Cost(forward_ns, max(0, started_ns - self._ready_ns), 1, segment.num_rows)
        self._summary = replace(
            self._summary,
            num_verified=self._summary.num_verified + num_verified,
            num_rejections=self._summary.num_rejections + bool(rejected),
        )
        generates = last < self._own_end
        self._verified_end = last + 1
        self._pass_unmarked()
        if generates:
            self._send_generated(samples[:num_verified].tolist())
        else:
            self._send(int(wanted[0]), samples.tolist(), num_verified, waiting=self._waits and bool(rejected))
        self._ready_ns = self._ended_ns

    def _pass_unmarked(self) -> None:
        """Move `verified_end` over drafted tokens that the device decides."""
        rest = self._to_verify[self._verified_end : self._end]
        marked = int(rest.argmax()) if rest.any() else len(rest)
        self._verified_end += marked

    def _send_generated(self, tokens: list[int]) -> None:
        """Send verified tokens where nobody waits for each: in chunks, and when the cloud's part ends."""
        self._unsent += tokens
        if len(self._unsent) >= self._chunk or self._verified_end >= self._own_end:
            start = min(self._verified_end, self._own_end) - len(self._unsent)
            unsent, self._unsent = self._unsent, []
            self._send(start, unsent, len(unsent), waiting=False)

    def _send(self, start: int, tokens: list[int], num_verified: int, *, waiting: bool) -> None:
        """A Verdict, with all that has come up since the last one."""
        self._summary = replace(self._summary, cost=self._summary.cost + self._cost)
        self._verdicts_ns.append(self._ended_ns)
        if waiting:
            self._waits_for = len(self._verdicts_ns)
        near_ties, cost = tuple(self._near_ties), self._cost
        self._near_ties, self._cost = [], Cost()
        self._reply(Verdict(self.applied_seq, start, tuple(tokens), num_verified, near_ties, cost, waiting))

    def fail(self, error: CiarError) -> None:
        """End the session with an error."""
        self.finished = True
        self._reply(error)
