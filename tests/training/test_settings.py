"""Committed configurations load; wrong ones name the field."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.cli import app
from training.settings import ConfigError, load_config

CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_committed_configuration_loads(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_errors_name_file_and_field(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "x"\n[cloud_training]\nbatch_size = 0\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.toml: cloud_training\.batch_size"):
        load_config(path)
    path.write_text("name = ", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load_config(path)
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("command", "message"), [("tokenizer", "`data`"), ("cloud", "`data`"), ("features", "`cloud`")]
)
def test_a_step_without_the_one_before_it_says_what_to_run(command: str, message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [command, "--config", str(CONFIGS[-1]), "--run", str(tmp_path)])
    assert result.exit_code == 1
    assert message in result.output


@pytest.mark.slow
def test_smoke_chain(tmp_path: Path) -> None:
    """Every step of the smoke configuration, in order; about two minutes."""
    from shared.bundle import load_manifest

    smoke = next(path for path in CONFIGS if path.stem == "smoke")
    options = ["--config", str(smoke), "--run", str(tmp_path / "run")]
    for step in ("data", "tokenizer", "cloud", "drafter", "radius", "features"):
        result = CliRunner().invoke(app, [step, *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    bundle = tmp_path / "bundle"
    result = CliRunner().invoke(app, ["export", *options, "--bundle", str(bundle)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert load_manifest(bundle).name == "smoke"
    assert "drawn" in (bundle / "README.md").read_text(encoding="utf-8").lower()
