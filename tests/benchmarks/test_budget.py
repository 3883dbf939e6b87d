"""The budget of a picture: its sums, its tables, and the whole tool on real processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ciar.benchmarks.budget as tool
from ciar.benchmarks.budget import Budget, Floors, device_targets, sheets, to_dict
from ciar.benchmarks.budget_server import targets
from ciar.benchmarks.measurement import Measurement
from ciar.benchmarks.stopwatch import Total

FLOORS = Floors(1.0, 2.0, 3.0, 4.0, 5.0)


def test_what_is_timed_is_where_it_is_said_to_be() -> None:
    for target in (*device_targets(), *targets()):
        assert callable(vars(target.owner)[target.attribute]), target.attribute


def test_pictures_are_averaged_and_shares_are_of_a_thread(measured: Callable[..., Measurement]) -> None:
    budget = Budget()
    for _ in range(2):
        budget.plain.append(measured(seconds=1.0))
        budget.timed.append(measured(seconds=1.1))
        budget.add(
            {("MainThread", "loop"): Total(1, 0.3, 1.0, 0.2), ("MainThread", "gate"): Total(10, 0.1, 0.1, 0.1)},
            {
                "stages": [
                    ("engine", "pass: 1 row", asdict(Total(4, 0.0, 0.2, 0.0))),
                    ("engine", "embedding", asdict(Total(4, 0.2, 0.2, 0.2))),
                    ("engine", "waiting for work", asdict(Total(4, 9.0, 9.0, 0.0))),
                ],
                "cpu_s": {"engine": 0.5},
            },
        )
    assert budget.stopwatch_share == pytest.approx(0.1)
    found = {sheet.title: sheet for sheet in sheets(budget, FLOORS)}
    device = found["device, the thread that generates: 400.0 ms a picture"]
    assert device.rows[0] == ("loop", "1.0", "300000.0", "300.0", "75.0%", "200.0")
    cloud = found["cloud, the engine's thread at work: 200.0 ms a picture"]
    assert [row[0] for row in cloud.rows] == ["embedding"]
    passes = found["cloud, passes by kind (wall time of the runner)"]
    assert passes.rows == [("1 row", "4.0", "50.00", "200.0")]
    report = to_dict(budget, FLOORS)
    assert report["cloud_cpu_ms"] == {"engine": 500.0}
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--method", "cair"], "did you mean 'ciar'"),
        (["--profile", "6g"], "did you mean '5g'"),
        (["--bundle", "/nowhere"], "there is no /nowhere/captions.json"),
        (["--out", "/proc/nothing"], "out: cannot write"),
    ],
)
def test_bad_input_is_a_sentence(arguments: list[str], sentence: str) -> None:
    app = tool.typer.Typer()
    app.command()(tool.budget)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_picture_is_accounted_for_on_both_sides(tmp_path: Path) -> None:
    app = tool.typer.Typer()
    app.command()(tool.budget)
    result = CliRunner().invoke(app, ["--pictures", "1", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout.splitlines()[-1])
    drawing = [row for row in report["device"] if row["thread"] == "MainThread"]
    assert sum(row["own_ms"] for row in drawing) == pytest.approx(report["picture_ms"], rel=0.02)
    assert {"drafter: ONNX Runtime", "token buffer", "encode", "waiting for a frame"} <= {r["stage"] for r in drawing}
    engine = {row["stage"]: row for row in report["cloud"] if row["thread"] == "engine"}
    assert {"attention and cache", "ONNX Runtime: layers", "embedding", "guidance", "sample: Gumbel noise"} <= set(
        engine
    )
    assert engine["attention and cache"]["calls"] > 100, "one a layer and pass"
    assert all(value > 0 for value in report["floors"].values())
    assert json.loads((tmp_path / "budget.json").read_text()) == report
