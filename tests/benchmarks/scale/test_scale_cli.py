"""`ciar bench-scale` itself: two processes and a relay around a tiny model, and what it says to bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ciar.benchmarks.scale.report import LABEL
from ciar.benchmarks.scale.trace import Trace
from ciar.shared import cli
from tests.support.server_process import REPOSITORY

INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # even from a background job
COMMAND = [sys.executable, "-c", f"{INTERRUPTIBLE}; from ciar.shared.cli import main; main()", "bench-scale"]
TINY = ["bench-scale", "--size", "tiny"]


@pytest.fixture
def trace_file(tmp_path: Path, trace: Trace) -> Path:
    path = tmp_path / "given.json"
    trace.save(path)
    return path


def test_a_run_replays_the_trace_and_says_everywhere_what_it_is(tmp_path: Path, trace_file: Path) -> None:
    out = tmp_path / "out"
    given = [*TINY, "--trace", str(trace_file), "--profile", "lan", "--out", str(out)]
    first = CliRunner().invoke(cli.app, given)
    assert first.exit_code == 0, first.stderr
    assert "9 pictures to draw: at most about" in first.stderr
    *lines, last = first.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert LABEL.upper() in lines[0]
    titles = [line for line in lines if ": time of a picture" in line or ": what is asked, sent" in line]
    assert len(titles) == 3  # two of the network, one of the floor
    assert all(line.startswith(LABEL) for line in titles)
    summary = json.loads(last)
    assert summary["label"] == LABEL
    rows = {(row["profile"], row["method"]): row for row in summary["rows"]}
    for record in Trace.load(trace_file).records:
        row = rows["lan", record.method]
        num_replaced = record.decisions.count("x")
        # The device compares with what it drafts anew, which with random weights may be another token.
        assert row["num_corrections"] == pytest.approx(num_replaced, rel=0.15)
        assert row["local_share"] == pytest.approx(record.decisions.count("l") / 256, abs=1e-5)
        assert row["verified_share"] == pytest.approx(record.asked.sum() / 256, abs=1e-5)
        assert row["num_passes"] >= 15 + num_replaced
        assert row["agreement"] is None
    assert rows["lan", "cloud"]["num_passes"] == 256
    assert rows["lan", "code:0.3"]["local_share"] == pytest.approx(1 - 76 / 256, abs=1e-5)
    assert rows["lan", "device"]["num_passes"] == 0
    assert rows["floor", "ciar"]["num_corrections"] == 0
    assert summary["facts"]["floor_s"] > 0
    assert {path.name for path in out.iterdir()} == {"scale.jsonl", "scale.md", "trace.json"}
    assert (out / "scale.md").read_text().startswith(f"# Latency at the paper's scale: {LABEL}\n")


@pytest.mark.slow
def test_a_finished_run_is_taken_up_without_measuring_again(tmp_path: Path, trace_file: Path) -> None:
    given = [*TINY, "--trace", str(trace_file), "--profile", "lan", "--out", str(tmp_path / "out")]
    first = CliRunner().invoke(cli.app, given)
    assert first.exit_code == 0, first.stderr
    again = CliRunner().invoke(cli.app, [*given, "--resume"])
    assert again.exit_code == 0, again.stderr
    rows = [json.loads(result.stdout.splitlines()[-1])["rows"] for result in (first, again)]
    assert rows[0] == rows[1]
    other = CliRunner().invoke(cli.app, [*given, "--resume", "--depth", "1"])
    assert other.exit_code == 2
    assert "depth was 2, is 1" in other.stderr


def test_an_interrupted_run_keeps_what_is_finished(tmp_path: Path, trace: Trace) -> None:
    out = tmp_path / "out"
    record = trace.records[1]
    records = tuple(record.model_copy(update={"prompt": f"star number {number}"}) for number in range(100))
    trace.model_copy(update={"records": records}).save(tmp_path / "given.json")
    command = [*COMMAND, "--size", "tiny", "--trace", str(tmp_path / "given.json"), "--profile", "loopback"]
    command += ["--method", "lossless", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    journal = out / "scale.jsonl"
    give_up_at = time.monotonic() + 240
    while not (journal.is_file() and journal.read_text().count("\n") >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert output == ""
    assert errors.splitlines()[-1].startswith("error: interrupted; ")
    assert errors.endswith("--resume goes on\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size", "XXXL"], "did you mean 'XXL'"),
        (["--device", "gpu"], "device: cpu, cuda or cuda:N (got 'gpu')"),
        (["--profile", "6g"], "did you mean '5g'"),
        (["--method", "cair"], "did you mean 'ciar'"),
        (["--method", "ciar:0.1"], "0 of 1 pictures of ciar:0.1"),
        (["--pictures", "2"], "pictures: the trace has 1, 2 are asked for"),
        (["--trace", "/nowhere.json"], "trace: cannot read /nowhere.json"),
        (["--out", "/proc/nothing"], "out: cannot write"),
    ],
)
def test_bad_input_is_a_sentence_and_an_exit_code(
    arguments: list[str], sentence: str, tmp_path: Path, trace_file: Path
) -> None:
    given = [*TINY, "--trace", str(trace_file), "--out", str(tmp_path / "out"), *arguments]
    result = CliRunner().invoke(cli.app, given)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert sentence in result.stderr


def test_a_trace_of_another_grid_is_refused_before_anything_is_drawn(tmp_path: Path, trace: Trace) -> None:
    records = tuple(record.model_copy(update={"decisions": record.decisions[:64]}) for record in trace.records)
    other = trace.model_copy(update={"grid_height": 8, "grid_width": 8, "records": records})
    other.save(tmp_path / "given.json")
    given = [*TINY, "--trace", str(tmp_path / "given.json"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, given)
    assert result.exit_code == 2
    assert "trace: its pictures have 8 × 8 tokens, the model's 16 × 16" in result.stderr


def test_a_missing_gpu_is_a_sentence(tmp_path: Path, trace_file: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    given = [*TINY, "--trace", str(trace_file), "--out", str(tmp_path / "out"), "--device", "cuda"]
    result = CliRunner().invoke(cli.app, given)
    assert result.exit_code == 2
    assert "device: cuda is not available here" in result.stderr
