"""The order of a run, and what the journal keeps of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ciar.benchmarks.bench import plan, run
from ciar.benchmarks.journal import NAME, Journal, require_writable
from ciar.benchmarks.measurement import Measurement, Task
from ciar.shared.errors import InvalidRequest, Unavailable

PROFILES, METHODS, PROMPTS, SEEDS = ("loopback", "5g"), ("cloud", "ciar", "device"), ("heart", "star"), (0, 1)
CONFIGURATION = {"methods": list(METHODS), "seeds": list(SEEDS), "bundle": {"digest": "d"}}
TASKS = plan(dict.fromkeys(PROFILES, METHODS), PROMPTS, SEEDS)

Make = Callable[..., Measurement]


@pytest.fixture
def draw(measured: Make) -> Callable[[Task], Measurement]:
    return lambda task: measured(**task._asdict())


def test_every_task_comes_once_and_each_method_comes_first_in_turn() -> None:
    assert len(TASKS) == len(set(TASKS)) == 2 * 3 * 2 * 2
    blocks = [TASKS[i : i + 3] for i in range(0, len(TASKS), 3)]
    for block in blocks:
        assert len({task._replace(method="") for task in block}) == 1, "methods of a block differ in nothing else"
    first = Counter(block[0].method for block in blocks)
    assert first == {"cloud": 4, "ciar": 2, "device": 2}  # four turns on two profiles


def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(
    tmp_path: Path, draw: Callable[[Task], Measurement]
) -> None:
    drawn: list[Task] = []

    def fail_at_the_sixth(task: Task) -> Measurement:
        if len(drawn) == 5:
            raise Unavailable("gone")
        drawn.append(task)
        return draw(task)

    with Journal(tmp_path, CONFIGURATION, resume=False) as journal, pytest.raises(Unavailable):
        run(TASKS, fail_at_the_sixth, journal)
    with (tmp_path / NAME).open("a") as file:
        file.write('{"profile": "loop')  # cut off in the writing
    with Journal(tmp_path, CONFIGURATION, resume=True) as journal:
        assert [m.task for m in journal.measurements] == TASKS[:5]
        shown: list[int] = []
        rest: list[Task] = []

        def draw_rest(task: Task) -> Measurement:
            rest.append(task)
            return draw(task)

        run(TASKS, draw_rest, journal, lambda _task, num_done: shown.append(num_done))
    assert rest == TASKS[5:]
    assert shown == list(range(5, len(TASKS)))
    with Journal(tmp_path, CONFIGURATION, resume=True) as journal:
        assert [m.task for m in journal.measurements] == TASKS
        assert journal.measurements[0] == draw(TASKS[0])


def test_a_run_with_another_configuration_is_refused_by_name(tmp_path: Path, measured: Make) -> None:
    with Journal(tmp_path, CONFIGURATION, resume=False) as journal:
        journal.append(measured())
    changed = CONFIGURATION | {"seeds": [0, 1, 2], "share": 0.5}
    with pytest.raises(InvalidRequest, match=r"^resume: ") as caught:
        Journal(tmp_path, changed, resume=True).__enter__()
    assert "seeds was [0, 1], is [0, 1, 2]" in str(caught.value)
    assert "share was null, is 0.5" in str(caught.value)
    assert "methods" not in str(caught.value)
    assert len((tmp_path / NAME).read_text().splitlines()) == 2


def test_a_new_run_moves_the_old_one_aside(tmp_path: Path, measured: Make) -> None:
    with Journal(tmp_path, CONFIGURATION, resume=False) as journal:
        journal.append(measured())
    with Journal(tmp_path, CONFIGURATION, resume=False) as journal:
        assert journal.measurements == []
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == 2
    assert NAME in files
    assert len((tmp_path / files[0]).read_text().splitlines()) == 2


def test_resume_without_a_run_begins_one(tmp_path: Path) -> None:
    with Journal(tmp_path / "new", CONFIGURATION, resume=True) as journal:
        assert journal.measurements == []
    assert json.loads((tmp_path / "new" / NAME).read_text())["configuration"] == CONFIGURATION


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"profile": "lan"}'])
def test_a_spoilt_journal_is_a_sentence(tmp_path: Path, line: str) -> None:
    with Journal(tmp_path, CONFIGURATION, resume=False):
        pass
    with (tmp_path / NAME).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InvalidRequest, match=r"^resume: line 2 of "):
        Journal(tmp_path, CONFIGURATION, resume=True).__enter__()


def test_a_folder_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for attempt in (
        lambda: require_writable(tmp_path / "file" / "out"),
        lambda: Journal(tmp_path / "file", CONFIGURATION, resume=False).__enter__(),
    ):
        with pytest.raises(InvalidRequest, match=r"^out: cannot write"):
            attempt()
