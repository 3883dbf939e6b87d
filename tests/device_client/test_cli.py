"""The device's commands, with a fake cloud in place of the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import Result

from ciar.device_client import Busy, CiarError, Client, PairMismatch, TimedOut, Unavailable, cli
from ciar.shared.bundle import Manifest
from tests.device_client.conftest import QUICK
from tests.device_client.fakes import FakeCloud
from tests.support.commands import command_runner

app = typer.Typer()
app.command()(cli.generate)
app.command()(cli.info)


@pytest.fixture
def cloud(manifest: Manifest, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCloud:
    cloud = FakeCloud(manifest, files)

    def connect(address: str) -> Client:
        assert address == "host:1"
        return Client(transport=cloud, cache_dir=tmp_path / "cache", retry=QUICK)

    monkeypatch.setattr(cli, "Client", connect)
    return cloud


def run(*arguments: Any) -> Result:
    return command_runner().invoke(app, [str(argument) for argument in arguments])


def generate(*arguments: Any) -> Result:
    return run("generate", "a heart", "--server", "host:1", *arguments)


def test_a_picture_is_saved_and_told_of(cloud: FakeCloud, tmp_path: Path) -> None:
    result = generate("-o", tmp_path / "a.png", "--seed", 3, "--scale", 4, "--heatmap", tmp_path / "h.png")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "a.png") as picture, Image.open(tmp_path / "h.png") as heat_map:
        assert picture.size == (32, 32)
        assert heat_map.width == 384
    assert result.stdout.startswith(f"{tmp_path / 'a.png'}: 16 tokens")
    assert cloud.closed


def test_json_is_the_last_line(cloud: FakeCloud, tmp_path: Path) -> None:
    result = generate("-o", tmp_path / "a.png", "--json", "--gate", "quantile:0.5", "--guidance", 2, "--top-k", 5)
    told = json.loads(result.stdout.splitlines()[-1])
    assert len(told["tokens"]) == len(told["decisions"]) == len(told["uncertainty"]) == 16
    assert told["gate"] == "quantile:0.5"
    assert (cloud.opens[0].sampling.guidance, cloud.opens[0].sampling.top_k) == (2, 5)


@pytest.mark.parametrize("name", ["no/such/folder/a.png", "a.nothing", "."])
def test_an_unwritable_output_is_an_error_before_any_work(cloud: FakeCloud, tmp_path: Path, name: str) -> None:
    result = generate("-o", tmp_path / name)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: output: ")
    assert result.stderr.count("\n") == 1
    assert not cloud.opens


@pytest.mark.parametrize(
    ("error", "code"),
    [(Busy("full", 100_000), 3), (TimedOut("late"), 4), (Unavailable("gone"), 5), (PairMismatch("other"), 6)],
)
def test_errors_are_a_sentence_and_a_code(cloud: FakeCloud, tmp_path: Path, error: CiarError, code: int) -> None:
    cloud.failures = dict.fromkeys(range(100_000), error)
    result = generate("-o", tmp_path / "a.png", "--timeout", 5)
    assert (result.exit_code, result.stderr) == (code, f"error: {error}\n")
    assert not (tmp_path / "a.png").exists()


def test_a_wrong_value_is_a_bad_request(cloud: FakeCloud, tmp_path: Path) -> None:
    result = generate("-o", tmp_path / "a.png", "--mode", "loseless")
    assert result.exit_code == 2
    assert "did you mean 'lossless'?" in result.stderr


def test_info_of_a_server(cloud: FakeCloud) -> None:
    result = run("info", "--server", "host:1")
    assert result.exit_code == 0
    for part in ("tiny 1", "8×8 px", "16 tokens", "verify_share 0.3", "drafter.onnx", "64 positions a pass"):
        assert part in result.stdout
    told = json.loads(run("info", "--server", "host:1", "--json").stdout)
    assert told["name"] == "tiny"


def test_info_of_a_folder(device_folder: Path, manifest: Manifest, tmp_path: Path) -> None:
    for name in manifest.files:
        (tmp_path / name).write_bytes((device_folder / name).read_bytes())
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    captions = {"length": 3, "phrases": ["heart"], "kinds": {"concept": ["heart"]}, "examples": ["a heart"]}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    result = run("info", "--bundle", tmp_path)
    assert result.exit_code == 0, result.output
    assert "concept   heart" in result.stdout


def test_info_of_no_bundle(tmp_path: Path) -> None:
    result = run("info", "--bundle", tmp_path)
    assert result.exit_code == 2
    assert "manifest.json" in result.stderr
