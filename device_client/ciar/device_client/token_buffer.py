"""The tokens of one picture as the device holds them, and the mirror of what the cloud holds.

    0 ─── final ─── committed_end ─── settled ─── settled_end ─── not looked at ─── T
                       0 ─── mirrored ─── sent_end

In: evaluations of the drafter with the gate's answers, in order, and the cloud's Verdicts. Out: Drafts to send, and how
far the picture is final. Plain bookkeeping: it knows no model, no network and no clock.

The cloud's buffer is the fold of Drafts and Verdicts in its order; the mirror repeats it. A Verdict holds below the
least start of the Drafts that the cloud had not applied. A position is final when all before it are, the local tokens
and marks before it equal the mirror's, and it is local or verified. Where they differ, the device *forks*: it sends a
Draft that replaces the cloud's buffer from there on. So a picture is a function of prompt, seed and settings, never of
timing.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from ciar.device_client.result import Decision
from ciar.shared.errors import ProtocolError
from ciar.shared.types import Cost, Draft, Tokens, Verdict


class Evaluation(NamedTuple):
    """What the device makes of one position, given the tokens before it."""

    sample: int
    """The device's own token."""
    to_verify: bool
    uncertainty: float


class _Sent(NamedTuple):
    seq: int
    start: int


class TokenBuffer:
    """One picture's tokens and what became of them."""

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens
        self.tokens = np.zeros(num_tokens, np.int64)  # (T,)
        self.uncertainty = np.full(num_tokens, np.nan, np.float64)  # (T,)
        self.decisions: list[Decision | None] = [None] * num_tokens
        self.committed_end = 0
        """Every token before this position is final."""
        self.settled_end = 0
        """Every position before this one was evaluated with the tokens before it as they are now."""
        self.sent_end = 0
        """The cloud holds, or will hold, drafted tokens before this position."""
        self.verified_end = 0
        """What the cloud was to verify before this position is verified, given the tokens in the mirror."""
        self.num_verdicts = 0
        """Of this stream."""
        self.num_verdicts_in_all = 0
        self.num_requests = 0
        self.num_forks = 0
        self.num_sent_to_verify = 0
        self.num_discarded = 0
        self.near_ties: set[int] = set()
        self.cost = Cost()
        self._samples = np.zeros(num_tokens, np.int64)  # (T,) the device's own
        self._to_verify = np.zeros(num_tokens, np.bool_)  # (T,)
        self._mirror_tokens = np.zeros(num_tokens, np.int64)  # (T,)
        self._mirror_marks = np.zeros(num_tokens, np.bool_)  # (T,) to be verified
        self._sampled = np.zeros(num_tokens, np.bool_)  # (T,) the mirror's token is the cloud's sample
        self._guessed_end = 0
        self._fork: int | None = None
        """First position where the device's view differs from the mirror."""
        self._seq = 0
        self._in_flight: deque[_Sent] = deque()

    @property
    def is_complete(self) -> bool:
        return self.committed_end == self.num_tokens

    @property
    def num_ahead(self) -> int:
        """Positions looked at that are not final."""
        return self.settled_end - self.committed_end

    # ---- the device's own view -------------------------------------------------------------------------------------

    def settle(self, evaluation: Evaluation) -> bool:
        """Take the evaluation of position `settled_end`. True: its token is another than it was, so what was evaluated
        behind it in the same window is of no use."""
        position = self.settled_end
        self.settled_end += 1
        sample, to_verify, self.uncertainty[position] = evaluation
        self._samples[position] = sample
        self._to_verify[position] = to_verify
        token = sample
        if position < self.sent_end and self._fork is None:
            mirrored = int(self._mirror_tokens[position])
            if to_verify != self._mirror_marks[position] or (not to_verify and sample != mirrored):
                self._fork = position
            elif to_verify and (position < self.verified_end or self._sampled[position]):
                token = mirrored
        if token == self.tokens[position]:
            return False
        self.tokens[position] = token
        return True

    def refresh(self, samples: Tokens) -> None:
        """Take the drafter's samples (n,) of the positions from `settled_end` on as guesses; the cloud's are better."""
        span = slice(self.settled_end, self.settled_end + len(samples))
        own = ~(self._sampled[span] & self._mirror_marks[span])
        self.tokens[span][own] = samples[own]

    def commit(self) -> bool:
        """Make final what can be. True: something was."""
        before = self.committed_end
        while (position := self.committed_end) < self.settled_end and self._is_final(position):
            self.decisions[position] = self._decision(position)
            self.committed_end += 1
        return self.committed_end > before

    def _is_final(self, position: int) -> bool:
        return not self._to_verify[position] or (self._fork is None and position < self.verified_end)

    def _decision(self, position: int) -> Decision:
        if not self._to_verify[position]:
            return Decision.LOCAL
        return Decision.ACCEPTED if self._samples[position] == self.tokens[position] else Decision.RESAMPLED

    # ---- the cloud -------------------------------------------------------------------------------------------------

    def take_generated(self, verdict: Verdict, decision: Decision) -> None:
        """Tokens that are final as they come: the cloud verifies every one. Raises ProtocolError if they do not fit."""
        self._count(verdict)
        self.near_ties.update(verdict.near_ties)
        end = verdict.start + len(verdict.tokens)
        if verdict.start != self.committed_end or end > self.num_tokens or verdict.num_verified < len(verdict.tokens):
            raise ProtocolError(f"verdict.start: {verdict.start} to {end} after {self.committed_end} tokens")
        for position, token in enumerate(verdict.tokens, verdict.start):
            drafted = position < self.settled_end and decision is Decision.CLOUD
            same = drafted and self._samples[position] == token
            self.tokens[position] = token
            self.decisions[position] = (Decision.ACCEPTED if same else Decision.RESAMPLED) if drafted else decision
        self.committed_end = end
        self.settled_end = max(self.settled_end, end)
        self.sent_end = max(self.sent_end, end)
        self.verified_end = max(self.verified_end, end)

    def take_verdict(self, verdict: Verdict) -> int | None:
        """Bring the mirror up to date. Returns the first position whose token changed: settle anew behind it."""
        self._count(verdict)
        cut = self._unapplied_start(verdict.applied_seq)
        self.near_ties.update(position for position in verdict.near_ties if position < cut)
        marked = verdict.start + np.flatnonzero(self._mirror_marks[verdict.start : min(cut, self.sent_end)])
        if cut > self.num_tokens and len(marked) < len(verdict.tokens):
            raise ProtocolError(f"verdict.tokens: {len(verdict.tokens)} for {len(marked)} positions to verify")
        positions = marked[: len(verdict.tokens)]
        tokens = np.array(verdict.tokens[: len(positions)], np.int64)
        self._mirror_tokens[positions] = tokens
        self._sampled[positions] = True
        if verdict.num_verified:
            whole = verdict.num_verified <= len(positions)
            end = int(positions[verdict.num_verified - 1]) + 1 if whole else cut
            self.verified_end = max(self.verified_end, min(end, cut))
        return self._adopt(positions, tokens)

    def _adopt(self, positions: Tokens, tokens: Tokens) -> int | None:
        """Take the mirror's tokens over where they stand for the device's guesses."""
        ahead = positions >= self.settled_end
        self.tokens[positions[ahead]] = tokens[ahead]
        usable = self._to_verify[positions] & ~ahead
        positions, tokens = positions[usable], tokens[usable]
        changed = positions[self.tokens[positions] != tokens]
        if not changed.size:
            return None
        first = int(changed[0])
        if first < self.committed_end:
            raise ProtocolError(f"verdict.tokens: another token for position {first}, which is final")
        self.tokens[positions] = tokens
        self.settled_end = first + 1
        if self._fork is not None and self._fork > first:
            self._fork = None  # found by evaluations that are no longer true
        return first + 1

    def guess(self, end: int) -> None:
        """Give every position before `end` a token to begin with: that of the neighbour on the left."""
        if self._guessed_end < end:
            last = max(self._guessed_end, self.settled_end)
            self.tokens[last:end] = self.tokens[last - 1] if last else 0
            self._guessed_end = end

    def next_draft(self) -> Draft | None:
        """What the cloud must be told, if anything: a fork, or what was drafted behind what it holds."""
        start = self.sent_end if self._fork is None else self._fork
        end = start
        marked = np.flatnonzero(self._to_verify[start : self.settled_end])
        if marked.size:
            end = start + int(marked[-1]) + 1
        if end == start and self._fork is None:
            return None
        return self._send(start, end)

    def acknowledgement(self) -> Draft:
        """A Draft that replaces nothing: the cloud waits to hear that its Verdict came."""
        return self._send(self.sent_end, self.sent_end)

    def guesses(self, end: int) -> Draft | None:
        """Drafted tokens before `end` that were not sent, as first guesses for a cloud that verifies all."""
        return self._send(self.sent_end, end) if end > self.sent_end else None

    def _send(self, start: int, end: int) -> Draft:
        if start < self.sent_end:
            self.num_forks += 1
            self.num_discarded += self.sent_end - start
            self.near_ties = {position for position in self.near_ties if position < start}
        span = slice(start, end)
        self._mirror_tokens[span] = self.tokens[span]
        self._mirror_marks[span] = self._to_verify[span]
        self._sampled[start:] = False
        self.verified_end = min(self.verified_end, start)
        self.sent_end = end
        self._fork = None
        self._seq += 1
        self._in_flight.append(_Sent(self._seq, start))
        self.num_requests += 1
        self.num_sent_to_verify += int(self._to_verify[span].sum())
        return Draft(self._seq, start, self.tokens[span].copy(), self._to_verify[span].copy(), self.num_verdicts)

    def _unapplied_start(self, applied_seq: int) -> int:
        """Least start of the Drafts that the cloud had not applied; past the picture if there are none."""
        if applied_seq > self._seq:
            raise ProtocolError(f"verdict.applied_seq: {applied_seq}; {self._seq} drafts were sent")
        while self._in_flight and self._in_flight[0].seq <= applied_seq:
            self._in_flight.popleft()
        return min((sent.start for sent in self._in_flight), default=self.num_tokens + 1)

    def _count(self, verdict: Verdict) -> None:
        self.num_verdicts += 1
        self.num_verdicts_in_all += 1
        self.cost += verdict.cost

    def reopen(self) -> Tokens:
        """Forget what was sent: a new stream begins with the final tokens, which are returned (h,)."""
        self.num_discarded += max(0, self.sent_end - self.committed_end)
        self.settled_end = self.sent_end = self.verified_end = self.committed_end
        self.num_verdicts = self._seq = 0
        self._in_flight.clear()
        self._fork = None
        self._sampled[:] = False
        return self.tokens[: self.committed_end].copy()
