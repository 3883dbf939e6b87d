"""A stopwatch for stages that are nested and run in several threads: whose own time is it?

In: functions to be timed, each with the name of its stage. Out: for each thread and stage, calls, the time inside, and
of it what was spent in no stage within, by the clock and in processor time. So the own times of a thread's stages
add up to its outermost ones. Costs a few microseconds a call; it knows nothing of what is timed.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Any, NamedTuple

Name = str | Callable[..., str]
"""A stage's name, or a function of (name of the stage around it, the call's arguments) that gives it."""


class Target(NamedTuple):
    """Where a function is found."""

    owner: Any
    """A module or class."""
    attribute: str
    name: Name


@dataclass(slots=True)
class Total:
    """What one stage of one thread took."""

    num_calls: int = 0
    own_s: float = 0.0
    """Without the stages inside."""
    whole_s: float = 0.0
    own_cpu_s: float = 0.0
    """Of its own time, what its thread was on a core."""

    def add(self, other: Total) -> None:
        """Add up."""
        self.num_calls += other.num_calls
        self.own_s += other.own_s
        self.whole_s += other.whole_s
        self.own_cpu_s += other.own_cpu_s


Totals = dict[tuple[str, str], Total]
"""(thread's name, stage) -> total."""


@dataclass(slots=True)
class _Frame:
    """A stage that is running."""

    stage: str
    inside_s: float = 0.0
    """Time of the stages inside that have ended."""
    inside_cpu_s: float = 0.0


_State = tuple[list[_Frame], dict[str, Total]]


class Stopwatch:
    """Times functions that have been wrapped; `take` gives what has added up."""

    def __init__(self, clock: Callable[[], float] = perf_counter, cpu_clock: Callable[[], float] = thread_time) -> None:
        self._clock, self._cpu_clock = clock, cpu_clock
        self._local = threading.local()
        self._lock = threading.Lock()
        self._by_thread: list[tuple[str, dict[str, Total]]] = []

    def wrap(self, function: Callable[..., Any], name: Name) -> Callable[..., Any]:
        """The function, timed."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            stack, totals = self._thread()
            stage = name if isinstance(name, str) else name(stack[-1].stage if stack else "", *args)
            frame = _Frame(stage)
            stack.append(frame)
            began, cpu_began = self._clock(), self._cpu_clock()
            try:
                return function(*args, **kwargs)
            finally:
                seconds, cpu_s = self._clock() - began, self._cpu_clock() - cpu_began
                stack.pop()
                if stack:
                    stack[-1].inside_s += seconds
                    stack[-1].inside_cpu_s += cpu_s
                own = Total(1, seconds - frame.inside_s, seconds, cpu_s - frame.inside_cpu_s)
                totals.setdefault(stage, Total()).add(own)

        return timed

    def take(self) -> Totals:
        """What has added up since the last call; stages that are running come with the next."""
        found: Totals = {}
        with self._lock:
            for thread, totals in self._by_thread:
                for stage in list(totals):
                    found.setdefault((thread, stage), Total()).add(totals.pop(stage))
        return found

    @contextmanager
    def on(self, targets: Sequence[Target]) -> Iterator[Stopwatch]:
        """Time these functions, wherever they are called from, for the length of the block."""
        before = [(target.owner, target.attribute, vars(target.owner)[target.attribute]) for target in targets]
        try:
            for target in targets:
                setattr(target.owner, target.attribute, self.wrap(getattr(target.owner, target.attribute), target.name))
            yield self
        finally:
            for owner, attribute, function in reversed(before):
                setattr(owner, attribute, function)

    def _thread(self) -> _State:
        try:
            return self._local.state  # type: ignore[no-any-return]
        except AttributeError:
            state: _State = ([], {})
            self._local.state = state
            with self._lock:
                self._by_thread.append((threading.current_thread().name, state[1]))
            return state
