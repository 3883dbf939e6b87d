"""What a forge reads: workflows, forms and settings are well formed, and call what the Makefile has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ciar import device_client

REPOSITORY = Path(__file__).parents[2]
GITHUB = REPOSITORY / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
PINNED = re.compile(r"[\w-]+/[\w./-]+@(v\d+|release/v\d+)")


def load(path: Path) -> dict[Any, Any]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict), path
    return document


def steps(path: Path) -> Iterator[dict[str, Any]]:
    document = load(path)
    for job in document["jobs"].values() if "jobs" in document else [document["runs"]]:
        yield from job["steps"]


def name_of(path: Path) -> str:
    return path.name


def test_every_yaml_file_parses() -> None:
    files = [path for path in GITHUB.rglob("*") if path.suffix in {".yml", ".yaml"}]
    assert len(files) >= 7
    for file in files:
        assert load(file)


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_a_workflow_may_do_little_and_ends(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}, "what a job needs beyond that, it says itself"
    assert workflow[True], "`on:`, which YAML 1.1 takes for a truth value"
    for name, job in workflow["jobs"].items():
        assert job["runs-on"] == "ubuntu-latest", name
        assert job["timeout-minutes"] <= 60, name
        assert set(as_list(job.get("needs", []))) <= workflow["jobs"].keys(), name


@pytest.mark.parametrize("path", [*WORKFLOWS, GITHUB / "actions" / "setup" / "action.yml"], ids=name_of)
def test_actions_have_a_major_version(path: Path) -> None:
    for step in steps(path):
        assert ("uses" in step) != ("run" in step), step
        if not step.get("uses", "./").startswith("./"):
            assert PINNED.fullmatch(step["uses"]), step["uses"]
        elif "uses" in step:
            assert (REPOSITORY / step["uses"] / "action.yml").is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_a_workflow_calls_targets_that_the_makefile_has(path: Path) -> None:
    called = {target for step in steps(path) for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}
    assert called
    assert called <= TARGETS


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_no_text_of_others_is_run(path: Path) -> None:
    for step in steps(path):
        assert "${{" not in step.get("run", ""), "expressions go through `env`, or a title could hold a command"


def test_ci_runs_every_check_and_every_promised_python() -> None:
    runs = " ".join(step.get("run", "") for step in steps(GITHUB / "workflows" / "ci.yml"))
    for target in ("lint", "test", "test-lowest", "coverage", "test-packaging", "dist", "image"):
        assert re.search(rf"make {target}(?![\w-])", runs), target
    matrix = load(GITHUB / "workflows" / "ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    assert matrix == ["3.11", "3.12", "3.13"]


def test_a_release_is_tested_attested_and_needs_no_token() -> None:
    jobs = load(GITHUB / "workflows" / "release.yml")["jobs"]
    assert set(jobs["publish"]["needs"]) == {"test", "build"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    uses = [step.get("uses", "") for step in steps(GITHUB / "workflows" / "release.yml")]
    assert any(name.startswith("actions/attest-build-provenance@") for name in uses)
    text = (GITHUB / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert "secrets." not in text
    assert "password" not in text


def test_dependabot_watches_python_actions_and_the_image() -> None:
    settings = load(GITHUB / "dependabot.yml")
    assert settings["version"] == 2
    assert {update["package-ecosystem"] for update in settings["updates"]} == {"pip", "github-actions", "docker"}
    for update in settings["updates"]:
        for folder in as_list(update.get("directories", update.get("directory"))):
            assert (REPOSITORY / folder.lstrip("/")).is_dir()


@pytest.mark.parametrize("path", FORMS, ids=name_of)
def test_an_issue_form_has_what_the_forge_demands(path: Path) -> None:
    form = load(path)
    assert {"name", "description", "body"} <= form.keys()
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert fields
    ids = [field["id"] for field in fields]
    assert len(set(ids)) == len(ids)
    for field in fields:
        assert field["type"] in {"textarea", "input", "dropdown", "checkboxes"}
        assert field["attributes"]["label"]
        assert (field["type"] == "dropdown") == ("options" in field["attributes"])


def test_the_lock_is_the_constraints_and_torch() -> None:
    """Only names that are not installed may be missing from it: constraints may speak of more."""
    constraints, lock = (pins(REPOSITORY / name) for name in ("constraints.txt", "requirements.lock"))
    torch = re.search(r"^TORCH \?= torch==(\S+)$", MAKEFILE, re.MULTILINE)
    assert torch is not None
    assert lock.pop("torch") == torch[1]
    assert lock == {name: version for name, version in constraints.items() if name in lock}
    assert constraints.keys() - lock.keys() == set()


def test_every_page_of_the_site_is_in_its_navigation() -> None:
    site = yaml.load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    named = set(re.findall(r"'([\w./-]+\.md)'", repr(site["nav"])))
    docs = REPOSITORY / "docs"
    assert {str(path.relative_to(docs)) for path in docs.rglob("*.md")} <= named
    assert site["theme"]["font"] is False, "nothing is fetched from elsewhere"


def test_the_reference_has_every_public_name() -> None:
    page = (REPOSITORY / "docs" / "api" / "device_client.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: ciar\.device_client\.(\w+)$", page, re.MULTILINE)) == sorted(device_client.__all__)


def pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
