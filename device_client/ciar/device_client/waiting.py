"""Every wait has an end: the deadline of a picture, and how long to try to take up a broken session.

Knows clocks and nothing of what is waited for.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from ciar.shared.errors import Busy, CiarError, TimedOut, Unavailable


class Deadline:
    """A point in time."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._at = time.monotonic() + timeout_s

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._at

    def remaining_s(self) -> float:
        """Seconds left, more than 0. Raises TimedOut if there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimedOut(f"timeout_s: the picture was not done within {self._timeout_s:g} s")
        return left


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a broken session is taken up again."""

    first_pause_s: float = 0.05
    """Doubles at every attempt that brings no new token."""
    longest_pause_s: float = 1.0
    give_up_after_s: float = 10.0
    """Since the last new token."""


class Retry:
    """Pauses between attempts at one picture, with full jitter, until patience or the deadline ends."""

    def __init__(self, policy: RetryPolicy, deadline: Deadline) -> None:
        self._policy = policy
        self._deadline = deadline
        self._progress = -1
        self._pause_s = policy.first_pause_s
        self._patience = Deadline(policy.give_up_after_s)

    def wait(self, error: CiarError, progress: int) -> None:
        """Pause before another attempt after `error`, with `progress` tokens final; or raise it if none is worth it."""
        match error:
            case Busy():
                self._sleep(error.retry_after_ms / 1000 * random.uniform(1.0, 1.25), error)
            case Unavailable() | TimedOut() if not self._deadline.is_over:
                self._back_off(error, progress)
            case _:
                raise error

    def _back_off(self, error: CiarError, progress: int) -> None:
        if progress > self._progress:
            self._progress, self._pause_s = progress, self._policy.first_pause_s
            self._patience = Deadline(self._policy.give_up_after_s)
        if self._patience.is_over:
            raise error
        self._sleep(random.uniform(0, self._pause_s), error)
        self._pause_s = min(2 * self._pause_s, self._policy.longest_pause_s)

    def _sleep(self, pause_s: float, error: CiarError) -> None:
        if pause_s >= self._deadline.remaining_s():
            raise error
        time.sleep(pause_s)
