"""`ciar evaluate` itself, on the embedded bundle, and what it says to bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from ciar.cloud_server.settings import EMBEDDED_BUNDLE
from ciar.shared import cli


def evaluate(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["evaluate", *arguments])
    return result.exit_code, result.output


@pytest.mark.slow
def test_a_small_evaluation_writes_everything_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("--quick", "--prompts", "2", "--seeds", "3,4", "--out", str(tmp_path / "out"))
    code, output = evaluate(*given)
    assert code == 0, output
    last = json.loads(output.splitlines()[-1])
    assert len(last["goals"]) == 10
    assert last["agreement"]["cloud"]["coupled"]["mean"] > 0.4
    held = json.loads((tmp_path / "out" / "evaluate.json").read_text(encoding="utf-8"))
    assert held["configuration"]["seeds"] == [300_000, 300_001, 400_000, 400_001]
    assert held["same_as_cloud"]["cloud"] == 1
    for name in ("risk_coverage.png", "tv_by_position.png", "contact_sheet.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert min(image.size) > 200
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "rollouts").iterdir()}
    assert len(kept) == 4
    assert evaluate(*given)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--seeds", "one"), "seeds: whole numbers with commas between"),
        (("--seeds", "18446744073709551615"), "seeds: must be at most"),
        (("--bundle", "nowhere"), "bundle: no manifest.json in nowhere"),
        (("--gate", "quantil:0.2"), "did you mean 'quantile'?"),
        (("--data", "nowhere"), "data: nowhere holds no prepared drawings"),
    ],
)
def test_bad_input_is_a_sentence_before_the_work(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    code, output = evaluate(*arguments, "--quick", "--out", str(tmp_path / "out"))
    assert code == 2
    assert sentence in " ".join(output.split())
    assert output.count("\n") == 1
    assert not (tmp_path / "out" / "rollouts").exists()


def test_a_file_that_is_not_the_bundles_is_named(tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED_BUNDLE, tmp_path / "bundle")
    (tmp_path / "bundle" / "decoder.onnx").write_bytes(b"?")
    code, output = evaluate("--bundle", str(tmp_path / "bundle"), "--out", str(tmp_path / "out"))
    assert code == 6
    assert "decoder.onnx" in output


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, output = evaluate("--quick", "--out", str(tmp_path / "file"))
    assert code == 2
    assert "out: cannot write" in output
