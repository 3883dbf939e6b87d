"""bench.html: whole, self-contained, and safe whatever the prompts are."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from ciar.benchmarks.figures import rows_of
from ciar.benchmarks.html_report import html, overview
from ciar.benchmarks.machine import PACKAGES
from ciar.benchmarks.measurement import Measurement
from ciar.benchmarks.methods import BASE
from ciar.benchmarks.profiles import PROFILES
from ciar.benchmarks.report import GLOSSARY

Make = Callable[..., Measurement]

VOID = {"meta", "img"}


class Checker(HTMLParser):
    """Collects text and tags, and demands that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(measured: Make) -> Checker:
    networks = {name: PROFILES[name] for name in ("loopback", "5g")}
    measurements = [
        measured(method, profile=profile, seconds=seconds)
        for profile in networks
        for method, seconds in ((BASE, 1.0), ("ciar", 0.5 if profile == "loopback" else 2.0))
    ]
    measurements.append(measured("ciar", profile="floor", seconds=0.1))
    machine = dict.fromkeys(("cpu", "cores", "system", "python", *PACKAGES), "x")
    summary: dict[str, Any] = {
        "environment": machine,
        "configuration": {
            "bundle": {"name": "icons", "version": "1", "digest": "0123", "num_tokens": 256},
            "server": "started here",
            "prompts": ["<script>alert('heart')</script>", "a & b"],
            "seeds": [7],
            "calibration": ["b", "c"],
            "verify_share": 0.2,
            "methods": [BASE, "ciar"],
        },
        "rpc_s": {"5g": 0.02},
        "floor_s": {"ciar": 0.1},
        "largest_residual_share": 0.01,
    }
    checker = Checker()
    checker.feed(html(summary, rows_of(measurements), networks, "processes not pinned", b"PNG"))
    checker.close()
    return checker


def test_it_is_whole_and_needs_nothing_else(page: Checker) -> None:
    assert page.open == []
    assert [attributes["src"] for tag, attributes in page.tags if tag == "img"] == ["data:image/png;base64,UE5H"]
    assert not [tag for tag, attributes in page.tags if tag in ("script", "link") or "href" in attributes]


def test_what_comes_from_outside_is_text(page: Checker) -> None:
    assert "<script>alert('heart')</script>" in page.text
    assert "a & b" in page.text


def test_it_says_what_ran_what_came_out_and_how_to_read_it(page: Checker) -> None:
    for words in ("icons 1, digest 0123", "small rpc", "5g 20.0 ms", "above a calibrated threshold", "14.7 Mbit/s"):
        assert words in page.text, words
    assert all(meaning in page.text for _, meaning in GLOSSARY)
    assert "loopback: time of a picture" in page.text
    assert "floor: time of a picture with every draft accepted" in page.text


def test_the_overview_says_who_is_faster(measured: Make) -> None:
    rows = rows_of(
        [
            measured(BASE),
            measured(BASE, profile="5g"),
            measured("ciar", seconds=0.5),
            measured("ciar", profile="5g", seconds=2.0),
            measured("code", seconds=0.99),
        ]
    )
    cells = overview(rows, ["loopback", "5g"], [BASE, "ciar", "code"])
    assert cells == {
        "ciar": [("2.00×", "faster"), ("0.50×", "slower")],
        "code": [("1.01×", "even"), ("–", "none")],
    }
