"""docs/benchmark.md names what there is, with its numbers."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.testing import CliRunner

from ciar.benchmarks.methods import METHODS
from ciar.benchmarks.profiles import PROFILES, Bandwidth, find_profile
from ciar.shared import cli
from tests.support.server_process import REPOSITORY

TEXT = (REPOSITORY / "docs" / "benchmark.md").read_text(encoding="utf-8")


def test_every_method_has_a_line() -> None:
    section = TEXT.partition("## Methods")[2].partition("## Networks")[0]
    assert tuple(re.findall(r"^\| `([a-z0-9-]+)", section, re.MULTILINE)) == METHODS


def test_every_network_has_a_line_with_its_numbers() -> None:
    section = TEXT.partition("## Networks")[2].partition("## On your own")[0]
    lines = {line.split("`")[1]: line for line in section.splitlines() if line.startswith("| `")}
    assert list(lines) == list(PROFILES)
    for name, profile in PROFILES.items():
        if not profile.is_direct:
            assert f"| {profile.rtt_ms:g} ms" in lines[name]
        for toxic in (*profile.up, *profile.down):
            if isinstance(toxic, Bandwidth):
                assert f"{toxic.rate_kbit_s / 1000:g} Mbit/s" in lines[name]


def test_every_flag_that_is_named_is_known() -> None:
    flags = set(re.findall(r"(?<![\w-])--[a-z]+", TEXT)) - {"--address"}
    commands = [name for name in cli.COMMANDS if name.startswith("bench")]
    help_texts = (CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "200"}).output for name in commands)
    shown = "".join(help_texts)
    assert flags
    assert {flag for flag in flags if flag not in shown} == set()


@pytest.mark.parametrize("command", re.findall(r"^\$ .*--profile '.*$", TEXT, re.MULTILINE))
def test_a_profile_in_json_is_one(command: str) -> None:
    words = shlex.split(command)
    assert find_profile(words[words.index("--profile") + 1]).rtt_ms == 600
