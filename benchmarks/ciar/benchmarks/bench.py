"""The order of a benchmark: every method over the same prompts and seeds, interleaved, each result kept at once.

Knows tasks and a journal; not how a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ciar.benchmarks.journal import Journal
from ciar.benchmarks.measurement import Measurement, Task


def plan(rows: Mapping[str, Sequence[str]], prompts: Sequence[str], seeds: Sequence[int]) -> list[Task]:
    """All tasks in their order; rows: the methods of each profile.

    Methods follow each other closely on one prompt, profile and seed, so slow drifts of the machine hit all alike; each
    prompt begins with another method, so none always comes first or always follows the same other one's heat.
    """
    tasks = []
    for turn, (seed, prompt) in enumerate((seed, prompt) for seed in seeds for prompt in prompts):
        for profile, methods in rows.items():
            shift = turn % len(methods)
            rotated = [*methods[shift:], *methods[:shift]]
            tasks += [Task(profile, method, prompt, seed) for method in rotated]
    return tasks


def run(
    tasks: Sequence[Task],
    draw: Callable[[Task], Measurement],
    journal: Journal,
    on_start: Callable[[Task, int], None] = lambda task, num_done: None,
) -> Sequence[Measurement]:
    """Measure what the journal does not have yet; returns all its measurements.

    on_start: called with a task that begins, and how many are done.
    """
    finished = {measurement.task for measurement in journal.measurements}
    for task in tasks:
        if task not in finished:
            on_start(task, len(journal.measurements))
            journal.append(draw(task))
    return journal.measurements
