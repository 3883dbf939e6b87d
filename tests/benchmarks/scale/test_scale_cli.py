"""`ciar bench-scale` itself: two processes and a relay, a tiny model beside, and what it says to bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ciar.benchmarks.scale.report import LABEL
from ciar.shared import cli

TINY = ["bench-scale", "--size", "tiny"]


@pytest.mark.slow
def test_a_run_says_everywhere_what_it_is_and_is_taken_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = [*TINY, "--profile", "lan", "--out", str(out)]
    first = CliRunner().invoke(cli.app, given)
    assert first.exit_code == 0, first.stderr
    assert "8 pictures: at most about" in first.stderr
    *lines, last = first.stdout.splitlines()
    assert LABEL.upper() in lines[0]
    titles = [line for line in lines if ": time of a picture" in line or ": what is verified, sent" in line]
    assert len(titles) == 3  # two of the network, one of the floor
    assert all(line.startswith(LABEL) for line in titles)
    summary = json.loads(last)
    rows = {(row["profile"], row["method"]): row for row in summary["rows"]}
    assert rows["lan", "cloud-window-1"]["num_passes"] == 256
    assert rows["lan", "cloud"]["num_passes"] < 200
    assert rows["lan", "lossless"]["agreement"] == 1
    assert rows["lan", "device"]["num_passes"] == 0
    assert summary["facts"]["floor_s"] > 0
    assert {path.name for path in out.iterdir()} == {"scale.jsonl", "scale.md"}
    again = CliRunner().invoke(cli.app, [*given, "--resume"])
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["rows"] == summary["rows"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size", "XXXL"], "did you mean 'XXL'"),
        (["--device", "gpu"], "device: cpu, cuda or cuda:N (got 'gpu')"),
        (["--profile", "6g"], "did you mean '5g'"),
        (["--method", "cair"], "did you mean 'ciar'"),
        (["--out", "/proc/nothing"], "out: cannot write"),
    ],
)
def test_bad_input_is_a_sentence_and_an_exit_code(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    given = [*TINY, "--out", str(tmp_path / "out"), *arguments]
    result = CliRunner().invoke(cli.app, given)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert sentence in result.stderr


def test_a_missing_gpu_is_a_sentence(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    given = [*TINY, "--out", str(tmp_path / "out"), "--device", "cuda"]
    result = CliRunner().invoke(cli.app, given)
    assert result.exit_code == 2
    assert "device: cuda is not available here" in result.stderr
