"""How long a replay can take at most: every question a pass of its own, and nothing overlaps.

In: tasks, the trace, and what a pass was measured to take. Out: seconds. The device's own work and the network come on
top; beside passes of hundreds of milliseconds they are small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ciar.benchmarks.measurement import Task
from ciar.benchmarks.profiles import FLOOR
from ciar.benchmarks.scale.facts import Facts
from ciar.benchmarks.scale.replay import ASKING, Replayed
from ciar.benchmarks.scale.trace import Trace
from ciar.device_client import Mode


def longest_s(tasks: Sequence[Task], methods: Mapping[str, Replayed], trace: Trace, facts: Facts) -> float:
    """Seconds of the cloud's passes for all tasks."""
    return sum(_num_passes(task, methods[task.method], trace) for task in tasks) * facts.pass_s[1]


def _num_passes(task: Task, method: Replayed, trace: Trace) -> float:
    num_tokens = trace.num_tokens
    if method.mode is Mode.CLOUD:
        return num_tokens
    num_written = method.settings.get("prefix_rate", trace.prefix_rate) * num_tokens
    if method.mode in ASKING and task.profile != FLOOR.name:
        return num_written + int(trace.records[method.numbers[task.prompt]].asked.sum())
    return num_written
