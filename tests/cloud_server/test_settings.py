"""Settings come from flags and the environment; a bad one is named, with exit status 2 and without a traceback."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from typer.testing import CliRunner

from ciar.cloud_server.settings import EMBEDDED_BUNDLE, Settings
from ciar.shared.cli import app
from ciar.shared.errors import InvalidRequest
from tests.support.running_cloud import RunningCloud

RUNNER = CliRunner()


def test_defaults() -> None:
    settings = Settings()
    assert settings.address == "127.0.0.1:50051"
    assert settings.bundle == EMBEDDED_BUNDLE
    assert settings.limits.idle_timeout_ms == 30_000


def test_the_environment_sets_values(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "ADDRESS": "0.0.0.0:7",
        "BUNDLE": "/b",
        "MAX_SESSIONS": "3",
        "IDLE_TIMEOUT_S": "1.5",
        "LOG_FORMAT": "console",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"CIAR_{name}", value)
    settings = Settings()
    assert settings.address == "0.0.0.0:7"
    assert settings.bundle == Path("/b")
    assert settings.max_sessions == 3
    assert settings.limits.idle_timeout_ms == 1500
    assert settings.log_format == "console"


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIAR_MAX_SESSIONS", "3")
    assert Settings(max_sessions=5).max_sessions == 5


def test_limits_tell_what_the_settings_say() -> None:
    limits = Settings(max_window=3, max_in_flight=4, idle_timeout_s=5, max_prompt_bytes=6).limits
    assert (limits.max_window, limits.max_in_flight) == (3, 4)
    assert (limits.idle_timeout_ms, limits.max_prompt_bytes) == (5000, 6)


BAD = [
    ("address", "localhost"),
    ("address", "localhost:port"),
    ("device", "tpu"),
    ("threads", "-1"),
    ("max_sessions", "0"),
    ("max_sessions", "many"),
    ("max_pass_rows", "0"),
    ("max_window", "0"),
    ("max_in_flight", "0"),
    ("max_message_bytes", "10"),
    ("idle_timeout_s", "0"),
    ("session_timeout_s", "-1"),
    ("drain_s", "-1"),
    ("log_level", "loud"),
    ("log_format", "xml"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_named(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**{name: value})  # type: ignore[arg-type]
    assert caught.value.errors()[0]["loc"] == (name,)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_serve_names_a_bad_value_of_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"CIAR_{name.upper()}", value)
    assert_serve_fails([], f"ciar: {name}: ", f"(got '{value}')")


def test_serve_names_a_bad_flag() -> None:
    assert_serve_fails(["--address", "nowhere"], "ciar: address: ", "(got 'nowhere')")


def test_serve_without_a_bundle_says_so(tmp_path: Path) -> None:
    assert_serve_fails(["--bundle", str(tmp_path)], "no manifest.json in", str(tmp_path))


def test_serve_names_a_damaged_file(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (bundle / "cloud.safetensors").write_bytes(b"damaged")
    assert_serve_fails(["--bundle", str(bundle)], "cloud.safetensors is not the file that the manifest names")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.json", '{"length": 4, "phrases": ["sun", "sun"]}'),
        ("captions.json", "{"),
        ("cloud.json", "[]"),
        ("cloud.json", '{"dim": 33}'),
    ],
)
def test_serve_survives_a_bundle_with_a_bad_file(tiny_bundle: Path, tmp_path: Path, name: str, content: str) -> None:
    """The manifest vouches for the bytes, not for their sense."""
    from tests.support.tiny_bundle import file_entry

    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (bundle / name).write_text(content, encoding="utf-8")
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][name] = file_entry(bundle / name, "cloud")
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert_serve_fails(["--bundle", str(bundle)], "ciar: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_serve_without_the_device_says_so(tiny_bundle: Path) -> None:
    assert_serve_fails(["--bundle", str(tiny_bundle), "--device", "cuda"], "ciar: device: cuda is not available")


def assert_serve_fails(arguments: list[str], *sentences: str) -> None:
    result = RUNNER.invoke(app, ["serve", *arguments])
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit), result.exception
    for sentence in sentences:
        assert sentence in result.output
    assert "Traceback" not in result.output


def test_a_taken_port_is_named(tiny_bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InvalidRequest, match=rf"address: cannot listen on {address}"):
            RunningCloud(Settings(bundle=tiny_bundle, address=address))
