"""The command line finds its commands late, and says what is missing."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
from typer.testing import CliRunner

from ciar.shared import cli

RUNNER = CliRunner()


def test_help_lists_every_command_without_importing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "importlib", SimpleNamespace(import_module=_no_module))
    result = RUNNER.invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    for name, (_, _, text) in cli.COMMANDS.items():
        assert name in result.output
        assert text in result.output


def test_no_arguments_show_the_help() -> None:
    assert "Commands" in RUNNER.invoke(cli.app, []).output


def test_an_unknown_command_is_a_usage_error() -> None:
    result = RUNNER.invoke(cli.app, ["paint"])
    assert result.exit_code == 2
    assert "No such command 'paint'" in result.output


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_a_missing_extra_is_a_sentence(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(cli, "importlib", SimpleNamespace(import_module=_no_module))
    result = RUNNER.invoke(cli.app, [name])
    assert result.exit_code == 2
    extra = cli.COMMANDS[name][1]
    assert f"`ciar {name}` needs torch, which is not installed: pip install '{extra}'" in result.output


def test_without_typer_the_command_is_a_sentence() -> None:
    without = "import sys; sys.modules['typer'] = None; from ciar.shared.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stderr == "ciar: the commands need typer, which is not installed: pip install 'ciar[cli]'\n"


@pytest.mark.parametrize("name", ["serve", "health"])
def test_the_clouds_commands_are_found(name: str) -> None:
    result = RUNNER.invoke(cli.app, [name, "--help"])
    assert result.exit_code == 0
    assert "--address" in result.output


def _no_module(name: str) -> ModuleType:
    raise ModuleNotFoundError(f"No module named {name!r}", name="torch")
