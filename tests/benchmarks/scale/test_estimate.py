"""How long a replay is said to take."""

from __future__ import annotations

import pytest

from ciar.benchmarks.measurement import Task
from ciar.benchmarks.methods import find_method
from ciar.benchmarks.profiles import FLOOR
from ciar.benchmarks.scale.estimate import longest_s
from ciar.benchmarks.scale.facts import Facts
from ciar.benchmarks.scale.replay import replayed
from ciar.benchmarks.scale.trace import Trace

FACTS = Facts(device="", num_parameters=1, pass_bytes=100, bandwidth_bytes_s=1000.0, pass_s={1: 0.5, 8: 0.6})


def test_no_pass_is_faster_than_reading_the_weights() -> None:
    assert FACTS.floor_s == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("method", "profile", "num_passes"),
    [
        ("cloud", "lan", 256),
        ("lossless", "lan", 0.06 * 256 + 241),
        ("ciar", "lan", 0.06 * 256 + 60),
        ("ciar", FLOOR.name, 0.06 * 256),
        ("code:0.5", "lan", 128),
        ("device", "lan", 0),
    ],
)
def test_at_most_a_pass_for_each_question(trace: Trace, method: str, profile: str, num_passes: float) -> None:
    methods = {method: replayed(find_method(method), trace, {})}
    tasks = [Task(profile, method, trace.prompts[0], trace.seed)] * 2
    assert longest_s(tasks, methods, trace, FACTS) == pytest.approx(2 * num_passes * 0.5)
