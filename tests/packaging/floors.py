"""Prints the lowest versions that the two projects promise to work with, as constraints for pip: `make test-lowest`.

    python tests/packaging/floors.py [EXTRA …]

Every `>=` of the direct dependencies and of the named extras becomes `==`. torch is left out: the Makefile pins it, and
an older one would bring gigabytes of CUDA packages. What these bring in turn is as new as pip finds it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PROJECTS = (REPOSITORY / "pyproject.toml", REPOSITORY / "cloud_server" / "pyproject.toml")

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?P<extras>\[.+\])?(?P<operator>>=|==)(?P<version>[0-9.]+)")


def floors(extras: Iterable[str]) -> dict[str, str]:
    """Name -> lowest version, over the dependencies and these extras of both; the higher one where both speak."""
    lowest: dict[str, str] = {}
    for project in PROJECTS:
        table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        optional = table["optional-dependencies"]
        for requirement in [*table["dependencies"], *(line for extra in extras for line in optional.get(extra, []))]:
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
    for distribution, floor in sorted(floors(sys.argv[1:]).items()):
        print(f"{distribution}=={floor}")
