"""The track of one picture: which tokens are final, which are guesses, which were sent, which are asked about.

    0 ─── final ─── committed_end ─── guesses ─── drafted_end ─── unknown ─── T

In: drafted tokens and the cloud's frames. Out: blocks to send, and where to roll back to. Plain bookkeeping: it knows
no model, no network and no clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ciar.device_client.gates import Scores
from ciar.device_client.result import Decision
from ciar.shared.errors import ProtocolError
from ciar.shared.tree import follow
from ciar.shared.types import Block, Correction, Cost, TreeDraft, Verdict, Written

FLOAT16_MAX = float(np.finfo(np.float16).max)


class _Sent(NamedTuple):
    """A draft that waits for its verdict."""

    epoch: int
    start: int
    end: int


class Track:
    """One picture's tokens and what became of them."""

    def __init__(self, num_tokens: int, vocab_size: int, feature_dim: int, *, send_features: bool = True) -> None:
        self.num_tokens = num_tokens
        self.tokens = np.zeros(num_tokens, np.int64)  # (T,)
        self.decisions: list[Decision | None] = [None] * num_tokens
        self.uncertainty = np.full(num_tokens, np.nan, np.float64)  # (T,)
        self.committed_end = 0
        """Every token before this position is final."""
        self.drafted_end = 0
        """Every token before this position is final or guessed."""
        self.epoch = 0
        self.num_open = 0
        """Guesses that are asked about: a correction of any of them makes what comes after it void."""
        self.near_ties: list[int] = []
        self.cost = Cost()
        self.num_requests = 0
        self.num_asked = 0
        self.num_confirmed = 0
        self.num_corrections = 0
        self.num_discarded = 0
        self.vocab_size = vocab_size
        self._send_features = send_features
        self._asked = np.zeros(num_tokens, np.bool_)  # (T,)
        self._features = np.zeros((num_tokens, feature_dim), np.float16)  # (T, r), rows of local tokens
        self._laws: dict[int, NDArray[np.float16]] = {}  # (V,) of asked positions that were not sent
        self._sent_end = 0
        self._questions: deque[int] = deque()  # asked positions that were not sent
        self._in_flight: deque[_Sent] = deque()

    @property
    def is_complete(self) -> bool:
        return self.committed_end == self.num_tokens

    @property
    def num_ahead(self) -> int:
        """Number of guesses."""
        return self.drafted_end - self.committed_end

    @property
    def survival(self) -> float:
        """Estimated chance that a token drafted now will not be made void by an open question (ours).

        Each open question is confirmed with the share of those answered so far, by Laplace's rule of succession.
        """
        confirmed_share = (self.num_confirmed + 1) / (self.num_confirmed + self.num_corrections + 2)
        return float(confirmed_share**self.num_open)

    @property
    def num_in_flight(self) -> int:
        """Drafts without a verdict."""
        return len(self._in_flight)

    @property
    def num_awaited(self) -> int:
        """Drafts without a verdict that a correction has not yet made void."""
        return sum(sent.epoch == self.epoch for sent in self._in_flight)

    def add_written(self, written: Written, decision: Decision) -> None:
        """Tokens that the cloud wrote alone, after all that is final. Raises ProtocolError if they do not fit."""
        self.cost += written.cost
        if written.tokens:
            if written.start != self.committed_end or self.num_ahead:
                raise ProtocolError(f"prefix.start: {written.start} after {self.committed_end} tokens")
            self._put(written.start, written.tokens, decision)
            self.near_ties.extend(written.near_ties)
            self._continue_at(written.start + len(written.tokens))

    def add_draft(
        self,
        token: int,
        scores: Scores,
        feature: NDArray[np.float32],
        *,
        asked: bool,
        law: NDArray[np.float16] | None = None,
    ) -> None:
        """A drafted token at `drafted_end`; feature: (r,). Decided at once unless asked, or after a question.

        law: (V,) the logits it was drawn from, if the cloud must know them to judge it.
        """
        position = self.drafted_end
        self.tokens[position] = token
        self.uncertainty[position] = scores.uncertainty
        self._asked[position] = asked
        self.drafted_end += 1
        if asked:
            self._questions.append(position)
            if law is not None:
                self._laws[position] = law
            self.num_open += 1
            return
        self.decisions[position] = Decision.LOCAL
        # In two steps: np.clip takes three times as long.
        self._features[position] = np.minimum(np.maximum(feature, -FLOAT16_MAX), FLOAT16_MAX)
        if self.committed_end == position:
            self.committed_end += 1

    def next_block(self, max_tokens: int) -> Block | None:
        """The next block to send, counted as sent: up to the last question that fits. None without a question."""
        if not self._questions:
            return None
        start = self._sent_end
        assert self._questions[0] < start + max_tokens, "the gate lets no run of local tokens outgrow a block"
        while self._questions and self._questions[0] < start + max_tokens:
            self._sent_end = self._questions.popleft() + 1
        block = self._block(start, self._sent_end)
        if self._laws:
            asked = start + np.flatnonzero(block.asked)
            block = replace(block, laws=np.stack([self._laws.pop(int(position)) for position in asked]))
        self._in_flight.append(_Sent(self.epoch, start, self._sent_end))
        self.num_requests += 1
        self.num_asked += int(block.asked.sum())
        return block

    def settle(self, verdict: Verdict) -> int | None:
        """Take in the verdict on the oldest draft in flight.

        Returns the position behind a correction, from which on everything that was guessed is void, or None. Raises
        ProtocolError for a verdict that does not fit the draft.
        """
        self.cost += verdict.cost
        if not self._in_flight:
            raise ProtocolError("verdict: no draft is in flight")
        sent = self._in_flight.popleft()
        if verdict.epoch != sent.epoch or verdict.stale != (sent.epoch != self.epoch):
            raise ProtocolError(f"verdict.epoch: {verdict.epoch} for a draft of epoch {sent.epoch} in {self.epoch}")
        if verdict.stale:
            return None
        self.near_ties.extend(verdict.near_ties)
        if verdict.correction is not None:
            return self._correct(sent, verdict.correction)
        if verdict.verified_through != sent.end:
            raise ProtocolError(f"verdict.verified_through: {verdict.verified_through} for a draft to {sent.end}")
        self._confirm(sent.end)
        self._commit_local()
        return None

    def add_tree(self, tree: TreeDraft) -> None:
        """A tree that is sent: all of it is asked about."""
        self._in_flight.append(_Sent(self.epoch, tree.start, tree.start + len(tree.tokens)))
        self.num_requests += 1
        self.num_asked += len(tree.tokens)

    def settle_tree(self, tree: TreeDraft, verdict: Verdict) -> None:
        """Take in the cloud's own tokens along the tree in flight. Raises ProtocolError if the verdict does not fit."""
        self.cost += verdict.cost
        self._in_flight.popleft()
        correction = verdict.correction
        if verdict.stale or verdict.epoch != tree.epoch or correction is None or correction.position != tree.start:
            raise ProtocolError(f"verdict: no tokens from {tree.start} on, where the tree of epoch {tree.epoch} starts")
        self.near_ties.extend(verdict.near_ties)
        num_inside, missed = follow(correction.tokens, tree.tokens.tolist(), tree.parents.tolist())
        self._put(tree.start, correction.tokens[:num_inside], Decision.CONFIRMED)
        self._put(tree.start + num_inside, correction.tokens[num_inside:], Decision.CORRECTED)
        self._continue_at(tree.start + len(correction.tokens))
        self.epoch = correction.next_epoch
        self.num_confirmed += num_inside
        self.num_corrections += missed
        self.num_discarded += len(tree.tokens) - num_inside

    def rewind(self) -> None:
        """Keep only what is final, for a new session."""
        self._in_flight.clear()
        self._drop_guesses(self.committed_end)
        self._continue_at(self.committed_end)
        self.epoch = 0

    def history(self) -> Block:
        """All that is final, for Open."""
        block = self._block(0, self.committed_end)
        return Block(block.start, block.tokens, np.zeros_like(block.asked), block.featured, block.features)

    def _block(self, start: int, end: int) -> Block:
        asked = self._asked[start:end].copy()
        local = np.array([decision is Decision.LOCAL for decision in self.decisions[start:end]], np.bool_)
        featured = local if self._send_features else np.zeros_like(local)
        return Block(start, self.tokens[start:end].copy(), asked, featured, self._features[start:end][featured])

    def _correct(self, sent: _Sent, correction: Correction) -> int:
        position, tokens = correction.position, correction.tokens
        if not (sent.start <= position < sent.end and self._asked[position]):
            raise ProtocolError(f"verdict.correction.position: {position} was not asked about in this draft")
        self._confirm(position)
        self._drop_guesses(position + 1)
        self._put(position, tokens, Decision.CORRECTED)
        self._continue_at(position + len(tokens))
        self.epoch = correction.next_epoch
        self.num_corrections += 1
        return position + 1

    def _confirm(self, end: int) -> None:
        """Everything before `end` is final: what was asked there is confirmed."""
        for position in range(self.committed_end, end):
            if self._asked[position]:
                self.decisions[position] = Decision.CONFIRMED
                self.num_confirmed += 1
                self.num_open -= 1
        self.committed_end = end

    def _commit_local(self) -> None:
        """Local tokens with no open question before them are final."""
        while self.committed_end < self.drafted_end and not self._asked[self.committed_end]:
            self.committed_end += 1

    def _drop_guesses(self, start: int) -> None:
        self.num_discarded += max(0, self.drafted_end - start)
        self.decisions[start : self.drafted_end] = [None] * max(0, self.drafted_end - start)
        self.uncertainty[start:] = np.nan
        self._asked[start:] = False
        self._questions.clear()
        self._laws.clear()
        self.num_open = 0

    def _put(self, start: int, tokens: tuple[int, ...], decision: Decision) -> None:
        if not tokens:
            return
        self._require_tokens(start, tokens)
        self.tokens[start : start + len(tokens)] = tokens
        self.decisions[start : start + len(tokens)] = [decision] * len(tokens)

    def _require_tokens(self, start: int, tokens: tuple[int, ...]) -> None:
        if start + len(tokens) > self.num_tokens:
            raise ProtocolError(f"tokens: {len(tokens)} from {start} on are more than a picture of {self.num_tokens}")
        if not 0 <= min(tokens) <= max(tokens) < self.vocab_size:
            raise ProtocolError(f"tokens: ids in [{min(tokens)}, {max(tokens)}] of a vocabulary of {self.vocab_size}")

    def _continue_at(self, position: int) -> None:
        self.committed_end = self.drafted_end = self._sent_end = position
