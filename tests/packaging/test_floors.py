"""Floors that `make test-lowest` installs: complete, and no higher than what is installed every day."""

from __future__ import annotations

import re

from tests.packaging.floors import CLOUD, PROJECTS, REPOSITORY, floors

BOTH = PROJECTS["both"]
EXTRAS = ("cli", "train", "bench")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def test_every_floor_is_below_the_version_in_use() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    used = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}
    for name, floor in floors(BOTH, EXTRAS).items():
        assert numbers(floor) <= numbers(used[name]), name


def test_where_both_speak_the_higher_floor_counts() -> None:
    assert floors(BOTH, ())["onnxruntime"] == "1.23", "the cloud's"
    assert floors(PROJECTS["device"], ())["onnxruntime"] == "1.20"


def test_extras_add_theirs_and_torch_is_left_to_the_makefile() -> None:
    assert "typer" not in floors(BOTH, ())
    assert "typer" in floors(BOTH, ["cli"])
    assert not {"torch", "ciar", "ciar-cloud"} & floors(BOTH, EXTRAS).keys()


def test_torch_has_a_floor_below_the_makefiles() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    pinned = re.search(r"^TORCH \?= torch==(\S+)$", makefile, re.MULTILINE)
    floor = re.search(r'"torch>=([\d.]+)"', CLOUD.read_text(encoding="utf-8"))
    assert pinned is not None
    assert floor is not None
    assert numbers(floor[1]) <= numbers(pinned[1])
