"""The demo's figures, from hand-made results."""

from __future__ import annotations

import pytest
from PIL import Image
from rich.console import Console

from ciar.benchmarks.demo import PROMPTS, Row, sheet, tables
from ciar.device_client import Decision, Mode, Result, Timings, Traffic


def result(mode: Mode, tokens: tuple[int, ...], decisions: tuple[Decision, ...], seconds: float) -> Result:
    return Result(
        image=Image.new("RGB", (8, 8), "red"),
        tokens=tokens,
        decisions=decisions,
        uncertainty=(None,) * len(tokens),
        near_ties=(),
        grid_width=2,
        seed=0,
        mode=mode,
        gate="",
        traffic=Traffic(num_requests=2, num_sent_to_verify=3, bytes_up=2048, bytes_down=1024),
        timings=Timings(total_s=seconds),
    )


BASE = [result(Mode.CLOUD, (1, 2, 3, 4), (Decision.CLOUD,) * 4, 2.0)] * 2
CIAR = [
    result(Mode.CIAR, (1, 2, 3, 9), (Decision.PREFIX, Decision.LOCAL, Decision.LOCAL, Decision.RESAMPLED), seconds)
    for seconds in (0.5, 1.0)
]


def test_ratios_are_taken_prompt_by_prompt_and_shares_are_of_all_tokens() -> None:
    figures = Row(Mode.CIAR, CIAR, BASE).figures()
    assert (figures["speed_ratio_min"], figures["speed_ratio_median"], figures["speed_ratio_max"]) == (2.0, 3.0, 4.0)
    assert figures["agreement"] == pytest.approx(0.75)
    assert figures["share_prefix"] == pytest.approx(0.25)
    assert figures["share_local"] == pytest.approx(0.5)
    assert figures["share_resampled"] == pytest.approx(0.25)
    assert figures["requests_over_tokens"] == pytest.approx(0.5)
    assert figures["sent_over_tokens"] == pytest.approx(0.75)


def test_the_tables_fit_a_terminal_of_80_columns() -> None:
    console = Console(width=80, record=True, file=None)
    for table in tables([Row(Mode.CLOUD, BASE, BASE), Row(Mode.CIAR, CIAR, BASE)]):
        assert console.measure(table).maximum <= 80


def test_the_sheet_shows_both_pictures_of_every_prompt() -> None:
    times = len(PROMPTS) // 2
    picture = sheet(BASE * times, CIAR * times)
    assert picture.width > 6 * 192
    assert picture.height > times * 192
