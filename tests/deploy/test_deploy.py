"""What is shipped to operators says what the code says: image, compose file, settings in the documentation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ciar.cloud_server.settings import EMBEDDED_BUNDLE, Settings

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
DOCKERFILE = DEPLOY / "cloud.Dockerfile"
OPERATIONS = REPOSITORY / "docs" / "operations.md"

VARIABLES = {f"CIAR_{name.upper()}": field for name, field in Settings.model_fields.items()}
DEVICE_VARIABLES = {"CIAR_CACHE"}


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return DOCKERFILE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def cloud() -> dict[str, Any]:
    """The compose file's only service."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert list(services) == ["cloud"]
    return services["cloud"]


def seconds(duration: str) -> float:
    """A compose duration such as '30s'."""
    number = re.fullmatch(r"(\d+)s", duration)
    assert number is not None, duration
    return float(number[1])


def instruction(dockerfile: str, name: str) -> list[str]:
    """The arguments of every `name` instruction, continuation lines joined."""
    lines = dockerfile.replace("\\\n", " ").splitlines()
    return [line.split(maxsplit=1)[1].strip() for line in lines if line.startswith(f"{name} ")]


def test_every_yaml_file_parses() -> None:
    files = [*DEPLOY.rglob("*.yaml"), REPOSITORY / ".pre-commit-config.yaml"]
    assert len(files) > 1
    for file in files:
        assert yaml.safe_load(file.read_text(encoding="utf-8")), file


def test_the_container_is_hardened(cloud: dict[str, Any]) -> None:
    assert cloud["read_only"] is True
    assert cloud["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in cloud["security_opt"]
    assert any(mount.startswith("/tmp:size=") for mount in cloud["tmpfs"])
    assert {"mem_limit", "cpus", "pids_limit"} <= cloud.keys()
    assert not cloud.keys() & {"privileged", "cap_add", "devices", "network_mode", "pid", "user"}


def test_nothing_but_loopback_is_published(cloud: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in cloud["ports"])


def test_the_drain_fits_into_the_grace_period(cloud: dict[str, Any]) -> None:
    drain_s = float(cloud["environment"]["CIAR_DRAIN_S"])
    assert drain_s == Settings.model_fields["drain_s"].default
    assert drain_s + 5 <= seconds(cloud["stop_grace_period"])
    assert cloud["stop_signal"] == "SIGTERM"


def test_a_pass_has_as_many_threads_as_the_container_has_cpus(cloud: dict[str, Any]) -> None:
    assert int(cloud["environment"]["CIAR_THREADS"]) == cloud["cpus"]


def test_compose_and_image_agree(cloud: dict[str, Any], dockerfile: str) -> None:
    (exposed,) = instruction(dockerfile, "EXPOSE")
    address = next(part for part in instruction(dockerfile, "ENV")[0].split() if part.startswith("CIAR_ADDRESS="))
    assert address == f"CIAR_ADDRESS={cloud['environment']['CIAR_ADDRESS']}" == f"CIAR_ADDRESS=0.0.0.0:{exposed}"
    assert [port.rpartition(":")[2] for port in cloud["ports"]] == [exposed]
    (healthcheck,) = instruction(dockerfile, "HEALTHCHECK")
    check = cloud["healthcheck"]
    assert healthcheck == (
        f"--interval={check['interval']} --timeout={check['timeout']} --start-period={check['start_period']} "
        f'--retries={check["retries"]} CMD ["{check["test"][1]}", "{check["test"][2]}"]'
    )
    assert REPOSITORY / cloud["build"]["dockerfile"] == DOCKERFILE
    assert (DEPLOY / cloud["build"]["context"]).resolve() == REPOSITORY


def test_compose_sets_values_that_the_server_takes(cloud: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(value)))
    Settings()


def test_the_image_runs_as_a_numeric_user_without_a_shell(dockerfile: str) -> None:
    (user,) = instruction(dockerfile, "USER")
    assert all(int(number) > 0 for number in user.split(":"))
    assert instruction(dockerfile, "ENTRYPOINT") == ['["ciar", "serve"]']
    assert instruction(dockerfile, "STOPSIGNAL") == ["SIGTERM"]


def test_the_image_reports_to_nobody(dockerfile: str) -> None:
    assert "ORT_DISABLE_TELEMETRY=1" in instruction(dockerfile, "ENV")[0].split()


def test_the_image_and_the_makefile_pin_the_same_torch(dockerfile: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    pinned = re.search(r"^TORCH \?= (\S+)$", makefile, re.MULTILINE)
    assert pinned is not None
    assert f"TORCH={pinned[1]}" in instruction(dockerfile, "ARG")
    assert not re.search(r"^torch==", (REPOSITORY / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_build_context_holds_what_the_server_needs() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*", "everything is left out unless named"
    taken = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    members = {"benchmarks", "bundles", "cloud_server", "device_client", "protos", "shared", "training"}
    needed = {"LICENSE", "README.md", "constraints.txt", "pyproject.toml"} | members
    assert taken == needed
    assert all((REPOSITORY / name).exists() for name in needed)


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("*.Dockerfile")), ids=lambda file: file.name)
def test_hadolint_has_nothing_to_say(file: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, file], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_every_variable_that_is_named_anywhere_exists() -> None:
    documents = [*DEPLOY.rglob("*.*"), *(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "README.md"]
    for document in documents:
        named = set(re.findall(r"\bCIAR_[A-Z][A-Z_]*\b", document.read_text(encoding="utf-8")))
        assert named <= VARIABLES.keys() | DEVICE_VARIABLES, document


def test_the_table_of_settings_is_complete_and_has_the_defaults() -> None:
    rows = re.findall(
        r"^\| `(CIAR_\w+)` \| (?:`(.*?)`|the embedded one) \| .+ \|$", OPERATIONS.read_text("utf-8"), re.MULTILINE
    )
    defaults = {name: str(field.default) for name, field in VARIABLES.items()}
    assert defaults.pop("CIAR_BUNDLE") == str(EMBEDDED_BUNDLE)
    assert [name for name, _ in rows] == list(VARIABLES), "one row each, in the order of Settings"
    assert {name: default for name, default in rows if default} == defaults
