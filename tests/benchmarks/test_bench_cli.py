"""`ciar bench` itself, over real processes on the embedded bundle, and what it says to bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ciar.benchmarks.machine import Placement
from ciar.benchmarks.methods import BASE, STRONGEST, Setting, find_method
from ciar.benchmarks.network import RelayProcess
from ciar.benchmarks.profiles import Latency, Profile, Reset
from ciar.benchmarks.prompts import prompts_of
from ciar.benchmarks.stage import Stage
from ciar.cloud_server.settings import EMBEDDED_BUNDLE
from ciar.device_client import Client
from ciar.shared import cli
from ciar.shared.bundle import MANIFEST
from ciar.shared.conditioning import CaptionVocabulary
from tests.support.pictures import assert_same_picture
from tests.support.server_process import REPOSITORY, ServerProcess

INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # even from a background job
BENCH = [sys.executable, "-c", f"{INTERRUPTIBLE}; from ciar.shared.cli import main; main()", "bench"]
SMALL = ["--prompts", "1", "--method", "ciar", "--method", "device", "--profile", "loopback", "--profile", "lan"]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    process = ServerProcess()
    process.start()
    yield process
    process.terminate()


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BENCH, *arguments], capture_output=True, text=True, timeout=120, cwd=REPOSITORY)


def test_a_small_run_measures_everything_and_says_so(tmp_path: Path) -> None:
    first = bench(*SMALL, "--out", str(tmp_path))
    assert first.returncode == 0, first.stderr
    *lines, last = first.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert any("pinned" in line for line in lines)
    summary = json.loads(last)
    assert [(row["profile"], row["method"]) for row in summary["rows"]] == [
        *((profile, method) for profile in ("loopback", "lan") for method in (BASE, STRONGEST, "ciar", "device")),
        *(("floor", method) for method in ("ciar", "device")),
    ]
    assert set(summary["floor_s"]) == {"ciar", "device"}
    for row in summary["rows"]:
        parts = sum(row[name] for name in ("network_s", "cloud_s", "drafting_s", "other_s", "residual_s"))
        assert parts == pytest.approx(row["seconds"]["p50"], rel=1e-3)
    assert summary["rows"][0]["agreement"] == 1
    assert summary["rpc_s"]["lan"] >= 0.001
    assert {path.name for path in tmp_path.iterdir()} == {f"bench.{kind}" for kind in ("html", "jsonl", "md", "png")}


def test_a_finished_run_is_taken_up_without_measuring_again(server: ServerProcess, tmp_path: Path) -> None:
    given = ["bench", "--server", server.address, "--prompts", "1", "--method", "device", "--profile", "loopback"]
    first = CliRunner().invoke(cli.app, [*given, "--out", str(tmp_path)])
    assert first.exit_code == 0, first.stderr
    again = CliRunner().invoke(cli.app, [*given, "--out", str(tmp_path), "--resume"])
    assert again.exit_code == 0, again.stderr
    rows = [json.loads(result.stdout.splitlines()[-1])["rows"] for result in (first, again)]
    assert rows[0] == rows[1]
    other = CliRunner().invoke(cli.app, [*given, "--out", str(tmp_path), "--resume", "--seeds", "1"])
    assert other.exit_code == 2
    assert "seeds was [0], is [1]" in other.stderr
    kept = tmp_path / "bench.jsonl"
    kept.write_text(kept.read_text().replace('"calibration": [', '"calibration": ["another", ', 1))
    recalibrated = CliRunner().invoke(cli.app, [*given, "--out", str(tmp_path), "--resume"])
    assert recalibrated.exit_code == 2
    assert "calibration was" in recalibrated.stderr
    assert len((tmp_path / "bench.jsonl").read_text().splitlines()) == 5  # configuration, three rows, a floor


def test_an_interrupted_run_says_how_to_go_on(server: ServerProcess, tmp_path: Path) -> None:
    arguments = ["--server", server.address, "--profile", "loopback", "--method", "lossless", "--prompts", "60"]
    command = [*BENCH, *arguments, "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    journal = tmp_path / "bench.jsonl"
    give_up_at = time.monotonic() + 60
    while not (journal.is_file() and journal.read_text().count("\n") >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert output == ""
    assert errors.startswith("error: interrupted; ")
    assert errors.endswith("--resume goes on\n")
    num_kept = journal.read_text().count("\n") - 1
    assert f"; {num_kept} finished and kept in {journal}: " in errors


def test_a_calibration_run_sees_every_drafted_token_and_u_beside_each_doubt(server: ServerProcess) -> None:
    prompts = prompts_of(CaptionVocabulary.load(EMBEDDED_BUNDLE / "captions.json"), 6)
    methods = {name: find_method(name) for name in ("ciar", "entropy", "ambiguity", "random")}
    with Stage(server.address, Placement(None, None, None), ()) as stage:
        manifest = stage.info().manifest
        seen = stage.calibrate(methods, prompts)
        assert stage.calibrate({"ciar": methods["ciar"]}, prompts) == {}
    assert set(seen) == set(methods)
    num_drafted = manifest.num_tokens - int(manifest.defaults.prefix_rate * manifest.num_tokens)
    for values in seen.values():
        assert len(values) == 6 * num_drafted
        assert values == sorted(values)
    assert seen["random"] == seen["ciar"]  # it needs its share alone
    share = Setting(manifest, manifest.defaults.verify_share, seen).matched_share(manifest.defaults.verify_share)
    # Of these pictures Ω's own threshold asks about as much as U's does, or else one of the two is of other tokens.
    ambiguity = np.quantile(manifest.ambiguity_quantiles, 1 - manifest.defaults.verify_share)
    assert np.mean(np.array(seen["ambiguity"]) > ambiguity) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_picture_survives_a_reset_with_unchanged_tokens(server: ServerProcess, direction: str) -> None:
    prompt = "red filled heart on cream"
    with Client(server.address) as client:
        undisturbed = client.generate(prompt, seed=5, mode="lossless")
    manifest_bytes = (EMBEDDED_BUNDLE / MANIFEST).stat().st_size
    # With the framing around the messages, and what comes before the session, the link has passed these in the middle.
    sent = {
        "up": undisturbed.traffic.bytes_up,
        "down": manifest_bytes + undisturbed.traffic.bytes_down // 2,
    }
    reset = {direction: (Latency(latency_ms=1), Reset(after_bytes=sent[direction]))}
    with (
        RelayProcess(server.address, Profile(name="broken", **reset)) as relay,
        Client(relay.address) as client,
    ):
        picture = client.generate(prompt, seed=5, mode="lossless")
    assert picture.traffic.num_resumptions >= 1
    assert_same_picture(picture, undisturbed)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--method", "cair"], 2, "did you mean 'ciar'"),
        (["--profile", "6g"], 2, "did you mean '5g'"),
        (["--seeds", "1,x"], 2, "seeds: whole numbers"),
        (["--seeds", "-1"], 2, "seeds: must be in"),
        (["--prompts", "100000"], 2, "has 136 to offer"),
        (["--bundle", "/nowhere"], 2, "there is no /nowhere/captions.json"),
        (["--out", "/proc/nothing"], 2, "out: cannot write"),
        (["--server", "127.0.0.1:1", "--quick"], 5, "nothing answers at 127.0.0.1:1"),
    ],
)
def test_bad_input_is_a_sentence_and_an_exit_code(
    arguments: list[str], code: int, sentence: str, tmp_path: Path
) -> None:
    given = arguments if "--out" in arguments else [*arguments, "--out", str(tmp_path)]
    result = CliRunner().invoke(cli.app, ["bench", *given])
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert sentence in result.stderr


def test_a_prompt_that_the_pair_does_not_know_is_a_sentence(server: ServerProcess, tmp_path: Path) -> None:
    arguments = ["--server", server.address, "--prompt", "red filled hart on cream", "--profile", "loopback"]
    result = CliRunner().invoke(cli.app, ["bench", *arguments, "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "hart" in result.stderr
