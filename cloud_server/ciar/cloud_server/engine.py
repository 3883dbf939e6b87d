"""The engine: the one thread that owns the model and all sessions.

In: commands from the service (open, frame, close), through an inbox. Out: frames, through each session's `reply`. The
service's event loop never waits for a pass, and no session's state is touched by two threads.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ciar.cloud_server.batch import PassSession, Segment
from ciar.cloud_server.pass_cost import PassCost
from ciar.cloud_server.session import Reply
from ciar.shared.errors import CiarError, InternalError

logger = logging.getLogger(__name__)


SessionFactory = Callable[[int, Reply], PassSession]
"""(slot, reply) -> a session that sends its frames through `reply`."""


class Runner(Protocol):
    """What the engine asks of a model."""

    def extend(self, segments: Sequence[Segment]) -> list[NDArray[np.float32]]:
        """Logits (w, V) of each segment's wanted positions, after adding its rows to its slot."""
        ...


class Engine:
    """Runs passes for as long as there is anything to compute; all methods may be called from any thread."""

    def __init__(
        self,
        runner: Runner,
        *,
        max_pass_rows: int = 2048,
    ) -> None:
        self._runner = runner
        self._max_pass_rows = max_pass_rows
        self._pass_cost = PassCost()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._sessions: dict[str, PassSession] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the pass that is running."""
        self._inbox.put(None)
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def open(self, session_id: str, slot: int, reply: Reply, make: SessionFactory) -> None:
        """Begin the session that `make` makes, in a free slot."""

        def command() -> None:
            try:
                self._sessions[session_id] = make(slot, reply)
            except CiarError as error:
                reply(error)
            except Exception:
                logger.exception("session did not open", extra={"session": session_id})
                reply(InternalError("the session did not open; see the server's log"))

        self._inbox.put(command)

    def submit(self, session_id: str, frame: object) -> None:
        """Give a session a frame; what is wrong with it goes to the session's reply."""

        arrived_ns = perf_counter_ns()

        def command() -> None:
            if session := self._sessions.get(session_id):
                _fail_alone(session, session.receive, frame, arrived_ns)

        self._inbox.put(command)

    def close(self, session_id: str) -> None:
        """Forget a session; its slot is free for every later `open`."""
        self._inbox.put(lambda: self._sessions.pop(session_id, None) and None)

    def _run(self) -> None:
        while self._receive():
            self.step()

    def _receive(self) -> bool:
        """Carry out all waiting commands; wait for one if no session has work. False: stop."""
        idle = not any(session.has_work for session in self._sessions.values())
        while True:
            try:
                command = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            idle = False

    def step(self) -> None:
        """One pass: schedule, extend, absorb."""
        work = self._schedule()
        if not work:
            return
        started_ns = perf_counter_ns()
        try:
            logits = self._runner.extend([segment for _, segment in work])
        except Exception:
            logger.exception("pass failed", extra={"sessions": [session.id for session, _ in work]})
            for session, _ in work:
                session.fail(InternalError("the model pass failed; see the server's log"))
            return
        forward_ns = perf_counter_ns() - started_ns
        self._pass_cost.add(sum(segment.num_rows for _, segment in work), forward_ns / 1e9)
        for (session, segment), rows in zip(work, logits, strict=True):
            _fail_alone(session, session.absorb, segment, rows, started_ns, forward_ns)

    def _schedule(self) -> list[tuple[PassSession, Segment]]:
        """Everything that is queued, of all sessions, as far as it fits one pass; who did not fit comes first next."""
        work: list[tuple[PassSession, Segment]] = []
        num_rows = 0
        for session_id, session in list(self._sessions.items()):
            if not session.has_work:
                continue
            segment = session.next_segment(self._pass_cost.row_cost)
            if work and num_rows + segment.num_rows > self._max_pass_rows:
                break
            num_rows += segment.num_rows
            work.append((session, segment))
            self._sessions[session_id] = self._sessions.pop(session_id)  # to the end of the line
        return work


def _fail_alone(session: PassSession, act: Callable[..., None], *arguments: object) -> None:
    """Have a session act; what goes wrong in it ends this session, and neither another nor the engine."""
    try:
        act(*arguments)
    except CiarError as error:
        session.fail(error)
    except Exception:
        logger.exception("session failed", extra={"session": session.id})
        session.fail(InternalError("the session failed; see the server's log"))
