"""Environments that hold the project as users get it: built from a copy, run with nothing of this one's Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DEVICE_PARTS = ("LICENSE", "README.md", "pyproject.toml", "protos", "shared", "device_client")
CLOUD_PARTS = ("cloud_server", "training", "benchmarks", "bundles")


def copy_repository(target: Path, parts: Iterable[str]) -> Path:
    """These parts of the repository. pip builds in place, and would leave a build folder and pick up an older one."""
    target.mkdir()
    for part in parts:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / part)
    return target


def run_outside(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Standard output of a command that must succeed, run with nothing of this environment's Python."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    result = subprocess.run(
        command, cwd=cwd, env=environment | variables, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
