"""The track of a picture whose cloud carries on behind its own corrections (ours).

A correction makes the guesses behind it void, yet most of them come back when they are drafted anew: the noise is the
same, and the drafter looks mostly elsewhere. So neither side forgets what was sent. The cloud puts its token in place
and judges the next question at once; the device drafts anew and compares:

    0 ─── final ─── committed_end ─── guesses ─── drafted_end
    0 ─────────── as the cloud has it ───── fork ─ ─ ─ taken back ─ ─ ─ sent_end

As long as it drafts what it has sent, the answers to the old questions are those to its new ones, and are often there
already. Where a token that it decides itself differs, or what it asks about does, lies the fork: from there on what
was sent is taken back, by a draft of a new epoch. What is final is the same as without all this.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ciar.device_client.gates import Scores
from ciar.device_client.result import Decision
from ciar.device_client.track import Track
from ciar.shared.errors import ProtocolError
from ciar.shared.types import Block, Correction, Verdict

REFILL = 16
"""Where the cloud has fewer tokens than this before it, more are drafted for it (ours)."""


class CarriedTrack(Track):
    """One picture's tokens, and what the cloud holds of them."""

    def __init__(self, num_tokens: int, vocab_size: int, feature_dim: int) -> None:
        """Sends no features: those of a token drafted anew would not be the ones that the cloud judged by."""
        super().__init__(num_tokens, vocab_size, feature_dim, send_features=False)
        self._sent_tokens = np.zeros(num_tokens, np.int64)  # (T,) as the cloud has them, corrections in place
        self._sent_asked = np.zeros(num_tokens, np.bool_)  # (T,)
        self._answered_end = 0  # the cloud has answered the questions of this epoch before this position
        self._sent_near_ties: set[int] = set()
        self._fork: int | None = None

    @property
    def num_awaited(self) -> int:
        """Drafts whose verdict still counts: none behind a fork."""
        return 0 if self._fork is not None else super().num_awaited

    @property
    def survival(self) -> float:
        """As `Track.survival` while there is enough that was sent; beyond it all is worth drafting, void or not."""
        if self.drafted_end < self._sent_end and self._sent_end - self.committed_end > REFILL:
            return super().survival
        return 1.0

    def add_draft(
        self,
        token: int,
        scores: Scores,
        feature: NDArray[np.float32],
        *,
        asked: bool,
        law: NDArray[np.float16] | None = None,
    ) -> None:
        position = self.drafted_end
        super().add_draft(token, scores, feature, asked=asked, law=law)
        if self._fork is not None or position >= self._sent_end:
            return
        if asked != self._sent_asked[position] or (not asked and token != self._sent_tokens[position]):
            self._fork = position
        elif asked:
            self._questions.pop()  # it is sent
            self._take_answers()

    def next_block(self, max_tokens: int) -> Block | None:
        """The next block to send. At a fork it is the first of a new epoch, and waits until all before it is final."""
        if not self._questions:
            return None
        if self._fork is not None:
            if self.committed_end < self._fork:
                return None
            self._sent_end, self._fork = self._fork, None
            self._answered_end = min(self._answered_end, self._sent_end)
            self._sent_near_ties = {position for position in self._sent_near_ties if position < self._sent_end}
            self.epoch += 1
        block = super().next_block(max_tokens)
        assert block is not None
        self._sent_tokens[block.start : block.end] = block.tokens
        self._sent_asked[block.start : block.end] = block.asked
        return block

    def settle(self, verdict: Verdict) -> int | None:
        """Take in a verdict on the oldest draft in flight. As `Track.settle`; a draft may have several verdicts."""
        self.cost += verdict.cost
        if not self._in_flight:
            raise ProtocolError("verdict: no draft is in flight")
        sent = self._in_flight[0]
        if verdict.epoch != sent.epoch or (verdict.stale and sent.epoch == self.epoch):
            raise ProtocolError(f"verdict.epoch: {verdict.epoch} for a draft of epoch {sent.epoch} in {self.epoch}")
        if not verdict.partial:
            self._in_flight.popleft()
        if sent.epoch < self.epoch:
            return None
        end = verdict.verified_through
        if not (self._answered_end < end <= sent.end and verdict.partial == (end < sent.end)):
            raise ProtocolError(f"verdict.verified_through: {end} for a draft to {sent.end}")
        if verdict.correction is not None:
            self._put_right(verdict.correction, end)
        self._answered_end = end
        self._sent_near_ties.update(verdict.near_ties)
        return self._take_answers()

    def rewind(self) -> None:
        super().rewind()
        self._fork = None
        self._sent_near_ties.clear()

    def _put_right(self, correction: Correction, end: int) -> None:
        """The cloud's token takes the place of the one that was sent."""
        position, tokens = correction.position, correction.tokens
        if correction.next_epoch != self.epoch:
            raise ProtocolError("server: it does not carry on behind a correction; update it, or set carry_on to False")
        if len(tokens) != 1 or position != end - 1 or not self._sent_asked[position]:
            raise ProtocolError(f"verdict.correction: {len(tokens)} tokens from {position} on in a verdict to {end}")
        self._require_tokens(position, tokens)
        self._sent_tokens[position] = tokens[0]

    def _take_answers(self) -> int | None:
        """Make final what can be: the position behind a correction, or None."""
        known_end = self._answered_end if self._fork is None else min(self._answered_end, self._fork)
        while self.committed_end < self.drafted_end:
            position = self.committed_end
            if self._asked[position]:
                if position >= known_end:
                    return None
                if position in self._sent_near_ties:
                    self.near_ties.append(position)
                own = int(self._sent_tokens[position])
                if own != self.tokens[position]:
                    self._replace(position, own)
                    return position + 1
                self._confirm(position + 1)
            else:
                self.committed_end += 1
        return None

    def _replace(self, position: int, token: int) -> None:
        self._drop_guesses(position + 1)
        if self._fork is not None and self._fork > position:
            self._fork = None
        self.tokens[position] = token
        self.decisions[position] = Decision.CORRECTED
        self.num_corrections += 1
        self.committed_end = self.drafted_end = position + 1

    def _continue_at(self, position: int) -> None:
        super()._continue_at(position)
        self._answered_end = position
