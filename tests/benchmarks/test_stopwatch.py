"""The stopwatch: own times add up, threads stay apart, and everything is put back."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from ciar.benchmarks.stopwatch import Stopwatch, Target


class Clock:
    """Seconds that pass by being told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Stopwatch:
    return Stopwatch(clock, lambda: clock.now / 2)  # half of the time on a core


def test_own_times_are_without_what_is_inside_and_add_up(watch: Stopwatch, clock: Clock) -> None:
    def inner() -> None:
        clock.now += 2

    timed = watch.wrap(inner, "inner")

    def outer() -> str:
        clock.now += 1
        timed()
        timed()
        clock.now += 3
        return "done"

    assert watch.wrap(outer, "outer")() == "done"
    found = {stage: total for (_, stage), total in watch.take().items()}
    assert (found["outer"].num_calls, found["outer"].own_s, found["outer"].whole_s) == (1, 4, 8)
    assert (found["inner"].num_calls, found["inner"].own_s, found["inner"].whole_s) == (2, 4, 4)
    assert sum(total.own_cpu_s for total in found.values()) == 4
    assert watch.take() == {}


def test_a_call_that_raises_is_timed_too(watch: Stopwatch, clock: Clock) -> None:
    def fail() -> None:
        clock.now += 1
        raise KeyError("x")

    with pytest.raises(KeyError):
        watch.wrap(fail, "fail")()
    ((_, total),) = watch.take().items()
    assert total.own_s == 1


def test_a_stage_may_be_named_by_what_is_around_it_and_by_its_arguments(watch: Stopwatch) -> None:
    inner = watch.wrap(lambda number: None, lambda around, number: f"{around}/{number}")
    watch.wrap(lambda: inner(7), "outer")()
    inner(8)
    assert {stage for _, stage in watch.take()} == {"outer", "outer/7", "/8"}


def test_threads_are_kept_apart(watch: Stopwatch, clock: Clock) -> None:
    timed = watch.wrap(lambda: None, "stage")
    thread = threading.Thread(target=timed, name="other")
    thread.start()
    thread.join()
    timed()
    assert set(watch.take()) == {("other", "stage"), (threading.current_thread().name, "stage")}


def test_what_is_wrapped_is_put_back(watch: Stopwatch) -> None:
    module = SimpleNamespace(double=lambda x: 2 * x)
    before = module.double
    with watch.on([Target(module, "double", "inner"), Target(module, "double", "outer")]):
        assert module.double is not before
        assert module.double(4) == 8
    assert module.double is before
    assert {stage for _, stage in watch.take()} == {"inner", "outer"}
