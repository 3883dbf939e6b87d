"""Floors that `make test-lowest` installs: complete, and no higher than what is installed every day."""

from __future__ import annotations

import re

from tests.packaging.floors import PROJECTS, REPOSITORY, floors

EXTRAS = ("cli", "train", "bench")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def test_every_floor_is_below_the_version_in_use() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    used = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}
    for name, floor in floors(EXTRAS).items():
        assert numbers(floor) <= numbers(used[name]), name


def test_where_both_speak_the_higher_floor_counts() -> None:
    assert floors(())["onnxruntime"] == "1.23", "the cloud's, which is above the device's"


def test_extras_add_theirs_and_torch_is_left_to_the_makefile() -> None:
    assert "typer" not in floors(())
    assert "typer" in floors(["cli"])
    assert not {"torch", "ciar", "ciar-cloud"} & floors(EXTRAS).keys()


def test_torch_has_a_floor_below_the_makefiles() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    pinned = re.search(r"^TORCH \?= torch==(\S+)$", makefile, re.MULTILINE)
    floor = re.search(r'"torch>=([\d.]+)"', PROJECTS[1].read_text(encoding="utf-8"))
    assert pinned is not None
    assert floor is not None
    assert numbers(floor[1]) <= numbers(pinned[1])
