"""Prints the lowest versions that the two projects promise to work with, as constraints for pip: `make test-lowest`.

    python tests/packaging/floors.py device|both [EXTRA …]

Every `>=` of the direct dependencies and of the named extras, of the device's distribution or of both, becomes `==`.
torch is left out: the Makefile pins it, and an older one would bring gigabytes of CUDA packages. What these bring in
turn is as new as pip finds it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DEVICE, CLOUD = REPOSITORY / "pyproject.toml", REPOSITORY / "cloud_server" / "pyproject.toml"
PROJECTS = {"device": (DEVICE,), "both": (DEVICE, CLOUD)}

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?P<extras>\[.+\])?(?P<operator>>=|==)(?P<version>[0-9.]+)")


def floors(projects: Iterable[Path], extras: Iterable[str]) -> dict[str, str]:
    """Name -> lowest version, over their dependencies and these extras; the higher one where both speak."""
    chosen = tuple(extras)
    lowest: dict[str, str] = {}
    for project in projects:
        table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        optional = table["optional-dependencies"]
        for requirement in [*table["dependencies"], *(line for extra in chosen for line in optional.get(extra, []))]:
            found = REQUIREMENT.fullmatch(requirement)
            if found is None:
                raise ValueError(f"{project.name}: `{requirement}` has no floor")
            name, version = found["name"], found["version"]
            if name not in {"ciar", "ciar-cloud", "torch"}:
                lowest[name] = max(version, lowest.get(name, version), key=_numbers)
    return lowest


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


if __name__ == "__main__":
    for distribution, floor in sorted(floors(PROJECTS[sys.argv[1]], sys.argv[2:]).items()):
        print(f"{distribution}=={floor}")
