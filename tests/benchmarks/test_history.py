"""The history of the headline rows: a line a release, from made-up runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ciar.benchmarks.history import HEADLINE, HISTORY, main, read_history
from ciar.benchmarks.measurement import Measurement
from ciar.benchmarks.methods import BASE

Make = Callable[..., Measurement]
REPOSITORY = Path(__file__).parents[2]
CONFIGURATION: dict[str, Any] = {
    "bundle": {"name": "made-up", "version": 1, "digest": "0", "num_tokens": 4},
    "profiles": [{"name": "lan"}],
    "prompts": ["a", "b"],
    "seeds": [0],
    "environment": {"cpu": "made-up", "cores": 2},
}


def write_run(folder: Path, measured: Make, methods: tuple[str, ...] = (*HEADLINE, "entropy"), **extra: Any) -> Path:
    """A bench run in which every method but the cloud alone takes half its time."""
    measurements = [
        measured(method, profile="lan", prompt=prompt, seconds=2.0 if method == BASE else 1.0)
        for prompt in CONFIGURATION["prompts"]
        for method in methods
    ]
    lines = [{"configuration": CONFIGURATION | extra}, *(m.to_dict() for m in measurements)]
    path = folder / "bench.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def call(folder: Path, *arguments: str) -> int:
    return main(["--history", str(folder / "history.jsonl"), *arguments])


def test_a_release_becomes_a_line(tmp_path: Path, measured: Make) -> None:
    run = write_run(tmp_path, measured)
    assert call(tmp_path, "add", "--run", str(run), "--release", "1.0", "--note", "made up") == 0
    (line,) = read_history(tmp_path / "history.jsonl")
    assert (line["release"], line["note"], line["num_pictures"]) == ("1.0", "made up", 2)
    assert line["environment"] == CONFIGURATION["environment"]
    assert [row["method"] for row in line["rows"]] == list(HEADLINE), "the headline rows and no others"
    assert [row["speed_up"]["p50"] for row in line["rows"]] == [1, 2, 2, 2, 2]


def test_a_release_has_one_line_on_a_machine(
    tmp_path: Path, measured: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(write_run(tmp_path, measured))
    assert call(tmp_path, "add", "--run", run, "--release", "1.0") == 0
    assert call(tmp_path, "add", "--run", run, "--release", "1.0") == 2
    assert "has a line of this machine already" in capsys.readouterr().err
    other = str(write_run(tmp_path, measured, environment={"cpu": "another"}))
    assert call(tmp_path, "add", "--run", other, "--release", "1.0") == 0
    assert len(read_history(tmp_path / "history.jsonl")) == 2


def test_an_unfinished_run_is_refused(tmp_path: Path, measured: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, measured, methods=(BASE, "cloud", "ciar"))
    assert call(tmp_path, "add", "--run", str(run), "--release", "1.0") == 2
    assert "lossless on lan" in capsys.readouterr().err
    run.write_text(run.read_text(encoding="utf-8").rsplit("\n", 2)[0] + "\n", encoding="utf-8")
    assert call(tmp_path, "add", "--run", str(run), "--release", "1.0") == 2
    assert "ciar on lan" in capsys.readouterr().err
    assert not (tmp_path / "history.jsonl").exists()


@pytest.mark.parametrize("text", ["", "{}\n", "nonsense\n"])
def test_what_is_no_run_is_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bench.jsonl").write_text(text, encoding="utf-8")
    assert call(tmp_path, "add", "--run", str(tmp_path / "bench.jsonl"), "--release", "1.0") == 2
    assert "is not what `ciar bench` writes" in capsys.readouterr().err


def test_the_plot_has_a_panel_a_network(tmp_path: Path, measured: Make) -> None:
    run = str(write_run(tmp_path, measured))
    for release in ("1.0", "1.1"):
        assert call(tmp_path, "add", "--run", run, "--release", release) == 0
    assert call(tmp_path, "plot", "--out", str(tmp_path / "docs" / "history.png")) == 0
    with Image.open(tmp_path / "docs" / "history.png") as image:
        assert image.width > 300


def test_an_empty_history_cannot_be_plotted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path, "plot", "--out", str(tmp_path / "history.png")) == 2
    assert "it has no line yet" in capsys.readouterr().err


def test_the_committed_history_can_be_read() -> None:
    assert (REPOSITORY / HISTORY).is_file()
    for line in read_history(REPOSITORY / HISTORY):
        assert {"release", "date", "environment", "bundle", "num_pictures", "rows"} <= line.keys()
