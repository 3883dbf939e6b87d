"""`ciar health`, against a server that runs and against none."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ciar.shared.cli import app
from tests.support.running_cloud import RunningCloud


def test_a_serving_server_is_exit_code_0(cloud: RunningCloud) -> None:
    result = CliRunner().invoke(app, ["health", "--address", cloud.address])
    assert (result.exit_code, result.output.strip()) == (0, "SERVING")


def test_no_server_is_exit_code_1() -> None:
    result = CliRunner().invoke(app, ["health", "--address", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert "UNAVAILABLE" in result.output


def test_the_address_is_by_default_the_servers_own(cloud: RunningCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    port = cloud.address.rpartition(":")[2]
    monkeypatch.setenv("CIAR_ADDRESS", f"0.0.0.0:{port}")
    result = CliRunner().invoke(app, ["health"])
    assert (result.exit_code, result.output.strip()) == (0, "SERVING")
