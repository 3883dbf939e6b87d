"""The collaborative decoding loop: draft → gate → queue → ask → receive → commit or roll back.

In: a request, a transport, a drafter, a gate. Out: a complete `Track`. What is final depends on the seed and the gate,
not on how deep the device drafts ahead, on timing, or on how often the session had to be taken up again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np

from ciar.device_client.drafter import Drafts
from ciar.device_client.gates import Gate
from ciar.device_client.result import Decision
from ciar.device_client.track import FLOAT16_MAX, Track
from ciar.device_client.transport import Session, Transport
from ciar.device_client.waiting import Deadline, Retry, RetryPolicy
from ciar.shared.errors import Busy, CiarError, ProtocolError, TimedOut, Unavailable
from ciar.shared.sampling import Noise, draw
from ciar.shared.types import (
    COUPLED,
    Acceptance,
    CloudFrame,
    Draft,
    Finish,
    Limits,
    Open,
    Opened,
    Sampling,
    Verdict,
    Written,
)

MIN_SURVIVAL = 0.1
"""Drafting ahead stops where a draft would stand with less than this chance: it would only heat the device (ours)."""

Frame = TypeVar("Frame", Opened, Written, Verdict)


@dataclass(frozen=True, slots=True)
class Request:
    """One picture to be drawn together."""

    prompt: str
    sampling: Sampling
    num_prefix_tokens: int
    """m: the cloud writes so many tokens first."""
    file_digests: dict[str, str]
    """SHA-256 of the device's files."""
    depth: int
    """Most drafts that wait for a verdict at a time."""
    max_ahead: int
    """Most guesses past the final tokens."""
    acceptance: Acceptance = COUPLED
    """How the cloud judges what it is asked about."""
    carry_on: bool = False
    """Whether the cloud goes on behind a correction; for a `CarriedTrack`."""


@dataclass(slots=True)
class Account:
    """Seconds and bytes, added up while the loop runs."""

    prefix_s: float = 0.0
    waiting_s: float = 0.0
    drafting_s: float = 0.0
    num_resumptions: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class Loop:
    """Draws one picture."""

    def __init__(
        self,
        request: Request,
        *,
        transport: Transport,
        drafter: Drafts,
        gate: Gate,
        track: Track,
        limits: Limits,
        deadline: Deadline,
        retry: RetryPolicy,
        on_commit: Callable[[Track], None] | None = None,
    ) -> None:
        self.account = Account()
        self._request = request
        self._transport = transport
        self._drafter = drafter
        self._gate = gate
        self._track = track
        self._limits = limits
        self._deadline = deadline
        self._retry = Retry(retry, deadline)
        self._on_commit = on_commit
        self._noise = Noise(request.sampling.seed, track.vocab_size)
        self._num_reported = 0
        self._condition: tuple[int, ...] | None = None
        self._rows_right = 0  # rows of the drafter's cache that describe the tokens as they are now
        self._began = perf_counter()

    def run(self) -> None:
        """Draw until every token is final, taking the session up again where it breaks.

        Raises TimedOut at the deadline, Unavailable when patience ends, Busy if the server stays full, and at once
        whatever another attempt cannot mend.
        """
        while not self._track.is_complete:
            try:
                self._collaborate()
            except (Unavailable, Busy, TimedOut) as error:
                self._retry.wait(error, self._track.committed_end)
                self._roll_back_to_final()

    def _collaborate(self) -> None:
        with self._session() as session:
            self._open(session)
            while not self._track.is_complete:
                self._draft()
                self._ask(session)
                self._receive(session)
                self._report()
            session.send(Finish())

    @property
    def _may_draft(self) -> bool:
        track = self._track
        if track.drafted_end == track.num_tokens or track.num_ahead >= self._request.max_ahead:
            return False
        return track.survival >= MIN_SURVIVAL

    def _draft(self) -> None:
        """Draft the next token, and let the gate say who decides it."""
        if not self._may_draft:
            return
        track, position = self._track, self._track.drafted_end
        began = perf_counter()
        if self._rows_right < position:
            self._drafter.read(track.tokens, self._rows_right, position)
        proposal = self._drafter.step(track.tokens, position)
        self._rows_right = position + 1
        center, law = proposal.center, None
        if self._request.acceptance.needs_laws:
            law = np.clip(center, -FLOAT16_MAX, FLOAT16_MAX).astype(np.float16)  # (V,)
            center = law.astype(np.float32)  # the cloud is told the very law that is drawn from
        token = draw(center, position, self._request.sampling, self._noise).token
        self.account.drafting_s += perf_counter() - began
        asked = self._gate.ask(position, proposal.scores)
        track.add_draft(token, proposal.scores, proposal.feature, asked=asked, law=law)

    def _ask(self, session: Session) -> None:
        """Send what is asked about; where the cloud carries on, when it has nothing else or no more can be drafted."""
        if not (self._request.carry_on and self._track.num_awaited and self._may_draft):
            self._send_questions(session)

    def _send_questions(self, session: Session) -> None:
        """Send what is asked about, as long as not too many questions are open."""
        track = self._track
        while track.num_awaited < self._request.depth and track.num_in_flight < self._limits.max_in_flight:
            block = track.next_block(self._limits.max_block_tokens)
            if block is None:
                return
            session.send(Draft(track.epoch, block))

    def _receive(self, session: Session) -> None:
        """Take in what has come; wait for it only if there is nothing else to do."""
        while not self._track.is_complete:
            frame = session.receive(0) if self._may_draft else self._wait(session)
            if frame is None:
                return
            if not isinstance(frame, Verdict):
                raise ProtocolError(f"server: {type(frame).__name__} in place of a verdict")
            if self._request.carry_on:
                self._send_questions(session)  # void or not, the cloud can use what is drafted
            void_from = self._track.settle(frame)
            if void_from is not None:
                self._gate.rollback(void_from)
                self._rows_right = min(self._rows_right, void_from)
            if self._track.num_awaited < self._request.depth:
                return  # room for another question: see to it first

    def _open(self, session: Session) -> None:
        """Say what is to be drawn and what is final already; take in condition and prefix."""
        request = self._request
        session.send(
            Open(
                request.prompt,
                request.sampling,
                request.num_prefix_tokens,
                request.file_digests,
                self._track.history(),
                request.acceptance,
                request.carry_on,
            )
        )
        opened = self._expect(session, Opened)
        if self._condition is None:
            self._drafter.reset(opened.condition)
            self._gate.rollback(0)
            self._condition = opened.condition
        elif opened.condition != self._condition:
            raise ProtocolError("server: another replica reads the prompt differently")
        self._prepare()
        self._track.add_written(self._expect(session, Written), Decision.PREFIX)
        self.account.prefix_s = self.account.prefix_s or perf_counter() - self._began

    def _prepare(self) -> None:
        """While the cloud writes the prefix: the noise of what is drawn behind it."""
        request, track = self._request, self._track
        if request.sampling.temperature > 0:
            self._noise.prepare(max(track.committed_end, request.num_prefix_tokens), track.num_tokens)

    def _expect(self, session: Session, kind: type[Frame]) -> Frame:
        frame = None
        while frame is None:
            frame = self._wait(session)
        if not isinstance(frame, kind):
            raise ProtocolError(f"server: {type(frame).__name__} in place of {kind.__name__}")
        return frame

    def _wait(self, session: Session) -> CloudFrame | None:
        began = perf_counter()
        try:
            return session.receive(self._deadline.remaining_s())
        finally:
            self.account.waiting_s += perf_counter() - began

    def _roll_back_to_final(self) -> None:
        """What a new session starts from: nothing that is not final."""
        self._track.rewind()
        self._gate.rollback(self._track.committed_end)
        self._rows_right = min(self._rows_right, self._track.committed_end)
        self.account.num_resumptions += self._condition is not None

    def _report(self) -> None:
        if self._on_commit is not None and self._track.committed_end > self._num_reported:
            self._num_reported = self._track.committed_end
            self._on_commit(self._track)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with closing(self._transport.collaborate(self._deadline.remaining_s())) as session:
            try:
                yield session
            finally:
                self.account.bytes_up += session.bytes_up
                self.account.bytes_down += session.bytes_down


def set_committed(error: CiarError, track: Track) -> None:
    """Leave on an error what was final when it struck."""
    error.committed = tuple(track.tokens[: track.committed_end].tolist())
