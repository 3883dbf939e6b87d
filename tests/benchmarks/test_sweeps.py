"""Sweeps: what they turn, where their rows stand, where a line crosses, and the command on real processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from ciar.benchmarks.figures import rows_of
from ciar.benchmarks.measurement import Measurement
from ciar.benchmarks.methods import BASE
from ciar.benchmarks.sweeps import FIGURES, SWEEPS, VOCABULARY, X, crossing, crossings, make_sweep
from ciar.benchmarks.sweeps_plots import write_sweep_plot
from ciar.benchmarks.sweeps_report import records, remarks, sheet
from ciar.benchmarks.sweeps_vocabulary import require_sizes
from ciar.shared import cli
from ciar.shared.errors import InvalidRequest
from tests.support.server_process import ServerProcess

Make = Callable[..., Measurement]
OVER_PICTURES = [name for name in SWEEPS if name != VOCABULARY]


@pytest.mark.parametrize("name", OVER_PICTURES)
def test_every_row_has_a_place_and_a_base(name: str) -> None:
    sweep = make_sweep(name)
    planned = {(profile, method) for profile, methods in sweep.plan_rows.items() for method in methods}
    assert planned == set(sweep.places)
    assert all(methods[0] == BASE for methods in sweep.plan_rows.values())
    assert all(method.name == key for key, method in sweep.methods.items())
    seen = [place for place in sweep.places.values() if place.x is not None]
    assert len(seen) == len(set(seen)), "two rows at one point"
    names = {*sweep.columns, *(name for panel in sweep.panels for name in panel)}
    assert names <= {*FIGURES, X}


def test_knobs_reach_the_client() -> None:
    window = make_sweep("window", [1, 8])
    assert window.methods["cloud, window 8"].settings == {"max_window": 8}
    assert make_sweep("ahead", [64]).methods["ciar, ahead 64"].settings == {"max_ahead": 64}
    assert make_sweep("prefix", [0.2]).methods["ciar, prefix 0.2"].settings == {"prefix_rate": 0.2}
    rtt = make_sweep("rtt", [0, 30])
    assert [profile.rtt_ms for profile in rtt.profiles.values()] == [0, 30]
    assert not rtt.profiles["0 ms"].is_direct, "the relay's own work is in every point"


@pytest.mark.parametrize("name", OVER_PICTURES)
def test_tables_and_plots_hold_every_point(name: str, measured: Make, tmp_path: Path) -> None:
    sweep = make_sweep(name)
    measurements = [measured(method, profile=profile, seconds=1 + len(method)) for profile, method in sweep.places]
    points = sweep.points(rows_of(measurements[::-1]))
    assert len(sheet(sweep, points).rows) == len(sweep.places) == len(records(points))
    json.dumps(records(points), allow_nan=False)
    write_sweep_plot(sweep, points, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width > 1000


@pytest.mark.parametrize(
    ("line", "at"),
    [
        ([(0, 2.0), (10, 1.5), (20, 0.5)], 15.0),
        ([(0, 2.0), (10, 1.0)], None),
        ([(0, 0.9), (10, 1.5)], 0),
        ([(0, 1.2), (10, 0.8), (20, 1.4), (30, 0.4)], 5.0),
        ([], None),
    ],
)
def test_a_crossing_is_interpolated(line: list[tuple[float, float]], at: float | None) -> None:
    assert crossing(line) == (at if at is None else pytest.approx(at))


def test_the_round_trip_of_each_crossing_is_said(measured: Make) -> None:
    sweep = make_sweep("rtt", [0, 10])
    seconds = {BASE: (1.0, 1.0), "cloud": (0.5, 0.5), "lossless": (2.0, 4.0), "ciar": (0.5, 2.0), "device": (0.1, 0.1)}
    seconds["nearby"] = (0.8, 1.1)
    rows = rows_of(
        [
            measured(method, profile=profile, seconds=values[index])
            for method, values in seconds.items()
            for index, profile in enumerate(sweep.profiles)
        ]
    )
    points = sweep.points(rows)
    assert crossings(points) == {
        "cloud": "not up to 10",
        "lossless": "from the first, 0, on",
        "ciar": "6.7",  # from 2 at 0 ms to 0.5 at 10 ms
        "nearby": "7.3",
        "device": "not up to 10",
    }
    assert "ciar 6.7" in remarks(sweep, points)[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["thresold"], "did you mean 'threshold'"),
        (["window", "rtt", "--values", "1"], "values: name the one sweep"),
        (["window", "--values", "1,x"], "values: numbers with commas"),
        (["window", "--values", "1.5"], "values: a window is a whole number"),
        (["ahead", "--values", "0"], "values: tokens drafted ahead are a whole number"),
        (["prefix", "--values", "1.5"], "values: a prefix rate is in [0, 1]"),
        (["threshold", "--values", "2"], "must be in [0, 1]"),
        (["rtt", "--values=-5"], "values: a round trip is not negative"),
        (["gates", "--values", "1"], "values: sweep 'gates' turns no number"),
        (["rtt", "--profile", "lan"], "are its round trips"),
        (["window", "--profile", "6g"], "did you mean '5g'"),
        (["vocabulary", "--values", "1"], "values: a vocabulary is a whole number"),
        (["window", "--out", "/proc/nothing"], "out: cannot write"),
    ],
)
def test_bad_input_is_a_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    given = arguments if "--out" in arguments else [*arguments, "--out", str(tmp_path)]
    result = CliRunner().invoke(cli.app, ["bench-sweep", *given])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert sentence in result.stderr


def test_sizes_are_sorted_and_told_apart() -> None:
    assert require_sizes([1024, 512, 512]) == [512, 1024]
    with pytest.raises(InvalidRequest):
        require_sizes([512.5])


def test_costs_of_vocabularies_are_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["bench-sweep", "vocabulary", "--values", "4096,8192", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    points = json.loads(result.stdout.splitlines()[-1])["vocabulary"]["points"]
    assert [point["vocab_size"] for point in points] == [4096, 8192]
    assert all(cost > 0 for point in points for cost in point["us"].values())
    assert {path.name for path in tmp_path.iterdir()} == {f"sweep-vocabulary.{kind}" for kind in ("jsonl", "md", "png")}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    process = ServerProcess()
    process.start()
    yield process
    process.terminate()


def test_a_small_sweep_measures_every_point_and_is_taken_up(server: ServerProcess, tmp_path: Path) -> None:
    given = ["bench-sweep", "rtt", "--values", "3", "--prompts", "1", "--server", server.address]
    first = CliRunner().invoke(cli.app, [*given, "--out", str(tmp_path)])
    assert first.exit_code == 0, first.output
    *lines, last = first.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    points = json.loads(last)["rtt"]["points"]
    assert [(point["line"], point["x"]) for point in points] == [
        (line, 3) for line in (BASE, "cloud", "lossless", "ciar", "nearby", "device")
    ]
    assert {path.name for path in tmp_path.iterdir()} == {f"sweep-rtt.{kind}" for kind in ("jsonl", "md", "png")}
    again = CliRunner().invoke(cli.app, [*given, "--out", str(tmp_path), "--resume"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout.splitlines()[-1])["rtt"]["points"] == points
