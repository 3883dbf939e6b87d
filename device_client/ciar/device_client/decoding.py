"""The decoding loop of the device: receive → settle → commit → send.

In: a request, a transport, a drafter, a gate. Out: a complete `TokenBuffer`. What is final depends on the prompt, the
seed and the gate, not on how far the device drafts ahead, on timing, or on how often the picture was taken up again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from time import perf_counter

from ciar.device_client.drafter import Drafts
from ciar.device_client.gates import Gate
from ciar.device_client.result import Decision
from ciar.device_client.token_buffer import Evaluation, TokenBuffer
from ciar.device_client.transport import Session, Transport
from ciar.device_client.waiting import Deadline, Retry, RetryPolicy
from ciar.shared.errors import Busy, CiarError, ProtocolError, TimedOut, Unavailable
from ciar.shared.sampling import Noise, sample_rows
from ciar.shared.types import CloudFrame, Finish, Open, Opened, Sampling, Verdict, Verify

EVALUATED_ROWS = 16
"""Positions that the drafter looks at in one run (ours): a run over so many costs little more than one over a few."""

GUESSES_SENT = 16
"""Tokens in one frame of first guesses, at least, for a cloud that verifies all."""


@dataclass(frozen=True, slots=True)
class Request:
    """One picture to be generated."""

    prompt: str
    sampling: Sampling
    bundle_digest: str
    verify: Verify
    num_prefix_tokens: int
    """m: the cloud generates so many tokens first, where not all are verified."""
    max_window: int
    """Most positions that the cloud verifies in one pass; 0 leaves it to the server."""
    max_ahead: int
    """Most positions drafted past the final tokens."""
    vocab_size: int
    alone: bool = False
    """Nothing will be verified: the cloud is not needed behind the prefix."""


@dataclass(slots=True)
class Account:
    """Seconds and bytes, added up while the loop runs."""

    prefix_s: float = 0.0
    waiting_s: float = 0.0
    drafting_s: float = 0.0
    num_resumptions: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class Decoding:
    """Generates one picture."""

    def __init__(
        self,
        request: Request,
        *,
        transport: Transport,
        drafter: Drafts | None,
        gate: Gate,
        buffer: TokenBuffer,
        deadline: Deadline,
        retry: RetryPolicy,
        on_commit: Callable[[TokenBuffer], None] | None = None,
    ) -> None:
        """drafter: None if the cloud has to do without drafts (only where it verifies all)."""
        self.account = Account()
        self._request, self._transport, self._drafter, self._gate = request, transport, drafter, gate
        self._buffer, self._deadline, self._on_commit = buffer, deadline, on_commit
        self._retry = Retry(retry, deadline)
        self._noise = Noise(request.sampling.seed, request.vocab_size)
        self._verifies_all = request.verify is Verify.ALL
        self._condition: tuple[int, ...] | None = None
        self._rows_end = 0  # rows of the drafter's cache that describe the tokens as they are now
        self._num_reported = 0
        self._owes_answer = False
        self._began = perf_counter()

    def run(self) -> None:
        """Generate until every token is final, taking the picture up again where a stream breaks.

        Raises TimedOut at the deadline, Unavailable when patience ends, Busy if the server stays full, and at once
        whatever another attempt cannot mend.
        """
        while not self._buffer.is_complete:
            try:
                self._stream()
            except (Unavailable, Busy, TimedOut) as error:
                self._retry.wait(error, self._buffer.committed_end)
                self.account.num_resumptions += self._condition is not None

    def _stream(self) -> None:
        with self._session() as session:
            self._open(session)
            if self._request.alone:
                session.send(Finish())
                self._draft_alone()
                return
            while not self._buffer.is_complete:
                self._receive(session)
                self._settle()
                self._send(session)
                self._report()
            session.send(Finish())

    # ---- receive ---------------------------------------------------------------------------------------------------

    def _open(self, session: Session) -> None:
        """Say what is to be generated and what is final already; take in the condition and the prefix."""
        request = self._request
        history = self._buffer.reopen()
        self._gate.rollback(len(history))
        self._rows_end = min(self._rows_end, len(history))
        self._owes_answer = False
        session.send(
            Open(
                request.prompt,
                request.sampling,
                request.bundle_digest,
                request.verify,
                request.num_prefix_tokens,
                request.max_window,
                history,
            )
        )
        opened = self._wait(session)
        if not isinstance(opened, Opened):
            raise ProtocolError(f"server: {type(opened).__name__} in place of Opened")
        if self._condition is None and self._drafter is not None:
            self._drafter.reset(opened.condition)
        elif self._condition not in (None, opened.condition):
            raise ProtocolError("server: another replica reads the prompt differently")
        self._condition = opened.condition
        while not self._verifies_all and self._buffer.committed_end < request.num_prefix_tokens:
            self._buffer.take_generated(_verdict(self._wait(session)), Decision.PREFIX)
        self.account.prefix_s = self.account.prefix_s or perf_counter() - self._began
        self._report()

    def _receive(self, session: Session) -> None:
        """Take in what has come; wait for it only if there is nothing else to do."""
        frame = session.receive(0) if self._may_draft else self._wait(session)
        while frame is not None:
            self._take(_verdict(frame))
            frame = session.receive(0) if not self._buffer.is_complete else None

    def _take(self, verdict: Verdict) -> None:
        if self._verifies_all:
            self._buffer.take_generated(verdict, Decision.CLOUD)
            return
        self._owes_answer = verdict.waiting
        changed = self._buffer.take_verdict(verdict)
        if changed is not None:
            self._gate.rollback(changed)
            self._rows_end = min(self._rows_end, changed)

    # ---- settle ----------------------------------------------------------------------------------------------------

    @property
    def _horizon(self) -> int:
        """Positions before it may be drafted now."""
        if self._drafter is None:
            return 0
        if self._verifies_all:
            return self._buffer.num_tokens
        return min(self._buffer.num_tokens, self._buffer.committed_end + self._request.max_ahead)

    @property
    def _may_draft(self) -> bool:
        return self._buffer.settled_end < self._horizon

    def _settle(self) -> None:
        """Evaluate what was not, or changed; where the cloud verifies all, only one window, to send it at once."""
        began = perf_counter()
        buffer = self._buffer
        while buffer.settled_end < self._horizon:
            self._evaluate(min(self._horizon, max(buffer.settled_end, self._rows_end) + EVALUATED_ROWS))
            buffer.commit()
            if self._verifies_all:
                break
        self.account.drafting_s += perf_counter() - began

    def _draft_alone(self) -> None:
        """Go on without the cloud."""
        while not self._buffer.is_complete:
            self._deadline.remaining_s()
            self._settle()
            self._report()

    def _evaluate(self, end: int) -> None:
        """One run of the drafter, over guesses; what comes behind the first that changes is evaluated anew later."""
        assert self._drafter is not None
        buffer, start = self._buffer, min(self._rows_end, self._buffer.settled_end)
        buffer.guess(end)
        proposals = self._drafter.evaluate(buffer.tokens, start, end)
        first = buffer.settled_end
        positions = range(first, end)
        samples, _ = sample_rows(proposals.centers[first - start :], positions, self._request.sampling, self._noise)
        for row, position in enumerate(positions, first - start):
            scores = proposals.scores(row)
            to_verify = self._gate.must_verify(position, scores)
            if buffer.settle(Evaluation(int(samples[position - first]), to_verify, scores.uncertainty)):
                buffer.refresh(samples[position + 1 - first :])
                break
        self._rows_end = buffer.settled_end

    # ---- send ------------------------------------------------------------------------------------------------------

    def _send(self, session: Session) -> None:
        """Commit what can be, and tell the cloud what it must know."""
        buffer = self._buffer
        if self._verifies_all:
            enough = buffer.settled_end - buffer.sent_end >= GUESSES_SENT or buffer.settled_end == buffer.num_tokens
            draft = buffer.guesses(buffer.settled_end) if enough else None
        else:
            draft = buffer.next_draft()
            if draft is None and self._owes_answer:
                draft = buffer.acknowledgement()
            self._owes_answer = False
        if draft is not None:
            session.send(draft)
        if not self._verifies_all:
            buffer.commit()

    def _wait(self, session: Session) -> CloudFrame:
        began = perf_counter()
        try:
            frame = None
            while frame is None:
                frame = session.receive(self._deadline.remaining_s())
            return frame
        finally:
            self.account.waiting_s += perf_counter() - began

    def _report(self) -> None:
        if self._on_commit is not None and self._buffer.committed_end > self._num_reported:
            self._num_reported = self._buffer.committed_end
            self._on_commit(self._buffer)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with closing(self._transport.generate(self._deadline.remaining_s())) as session:
            try:
                yield session
            finally:
                self.account.bytes_up += session.bytes_up
                self.account.bytes_down += session.bytes_down


def _verdict(frame: CloudFrame) -> Verdict:
    if not isinstance(frame, Verdict):
        raise ProtocolError(f"server: {type(frame).__name__} in place of a Verdict")
    return frame


def set_committed(error: CiarError, buffer: TokenBuffer) -> None:
    """Leave on an error what was final when it struck."""
    error.committed = tuple(buffer.tokens[: buffer.committed_end].tolist())
