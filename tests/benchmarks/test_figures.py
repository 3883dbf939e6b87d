"""Figures, tables and plots from hand-made measurements."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from ciar.benchmarks.figures import Spread, floors_s, rows_of, unexplained
from ciar.benchmarks.machine import PACKAGES
from ciar.benchmarks.measurement import Measurement
from ciar.benchmarks.methods import BASE, METHODS, STRONGEST
from ciar.benchmarks.plots import write_plots
from ciar.benchmarks.profiles import PROFILES
from ciar.benchmarks.report import WIDTH, footer, header, markdown, sheets, to_table

Make = Callable[..., Measurement]


def test_a_spread_interpolates() -> None:
    spread = Spread.of([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (spread.p50, spread.p25, spread.p75, spread.least, spread.most) == (3, 2, 4, 1, 5)
    assert spread.p95 == pytest.approx(4.8)


def test_ratios_are_taken_picture_by_picture(measured: Make) -> None:
    measurements = [
        measured(BASE, prompt="a", seconds=2.0),
        measured("ciar", prompt="a", seconds=1.0),
        measured("ciar", prompt="b", seconds=0.5),
        measured(BASE, prompt="b", seconds=3.0),
        measured(BASE, prompt="a", profile="lan", seconds=100.0),  # of another network: no pair
    ]
    row = next(row for row in rows_of(measurements) if row.method == "ciar")
    assert row.speed_up is not None
    assert (row.speed_up.least, row.speed_up.p50, row.speed_up.most) == (2, 4, 6)
    assert row.seconds.p50 == 0.75
    assert row.num_pictures == 2


def test_shares_are_of_all_tokens_and_bytes_go_both_ways(measured: Make) -> None:
    row = rows_of([measured(BASE), measured("ciar", tokens=(1, 2, 9, 9))])[1]
    assert row.agreement == 0.5
    assert row.requests_share == 0.5
    assert row.verified_share == 0.25
    assert row.local_share == 0.5
    assert row.bytes_per_token == 40


def test_parts_and_residual_are_those_of_the_pictures(measured: Make) -> None:
    row = rows_of([measured("ciar", seconds=1.0), measured("ciar", prompt="b", seconds=1.0, network_s=0.3)])[0]
    assert row.network_s == pytest.approx(0.35)
    assert row.residual_s == pytest.approx(0.05)
    assert row.residual_share == pytest.approx(0.05)
    assert row.other_s == pytest.approx(0.1)
    assert row.overlap_s == pytest.approx(0.5)  # the cloud's passes, longer than the device's 0.3 and 0.4
    assert row.over_overlap == pytest.approx(2)


def test_a_floor_is_the_methods_own_without_a_network(measured: Make) -> None:
    measurements = [
        measured("ciar", profile="floor", seconds=0.2),
        measured("ciar", profile="floor", prompt="b", seconds=0.4),
        measured("ciar", profile="lan", seconds=9.0),
        measured("device", profile="lan", seconds=0.9),
    ]
    assert floors_s(measurements) == {"ciar": pytest.approx(0.3)}
    assert [row.over_floor for row in rows_of(measurements)] == [pytest.approx(1), pytest.approx(30), None]


def test_a_row_without_its_base_has_no_ratio(measured: Make) -> None:
    row = rows_of([measured("ciar")])[0]
    assert (row.speed_up, row.agreement, row.cloud_compute_ratio) == (None, None, None)
    assert json.loads(json.dumps(row.to_dict(), allow_nan=False))["speed_up"] is None


def test_only_lossless_pictures_without_a_near_tie_must_be_the_clouds_own(measured: Make) -> None:
    other = (1, 2, 3, 9)
    measurements = [
        measured(BASE),
        measured(BASE, prompt="b", num_near_ties=1),
        measured("ciar", tokens=other),
        measured("lossless", tokens=other),
        measured("lossless", seed=1, tokens=other),  # nothing to compare with
        measured("lossless", prompt="b", tokens=other),
        measured("lossless, window 4", tokens=other),
        measured(STRONGEST, tokens=other),
    ]
    assert unexplained(measurements) == [measurements[3], *measurements[6:]]


@pytest.fixture
def everything(measured: Make) -> list[Measurement]:
    """Every method on every profile, with wide numbers."""
    return [
        measured(
            method,
            profile=profile,
            seconds=12.3456 / (1 + index),
            bytes_up=123_456,
            bytes_down=123_456,
            num_discarded=1234,
            num_forks=221,
        )
        for profile in PROFILES
        for index, method in enumerate(METHODS)
    ]


@pytest.fixture
def summary() -> dict[str, Any]:
    machine = dict.fromkeys(("cpu", "cores", "system", "python", *PACKAGES), "x")
    bundle = {"name": "icons", "version": "1", "digest": "0123456789abcdef", "num_tokens": 256}
    return {
        "environment": machine,
        "configuration": {
            "bundle": bundle,
            "server": "cloud.example:50051",
            "prompts": ["a"],
            "seeds": [0],
            "calibration": ["b", "c"],
            "verify_share": 0.2,
            "methods": list(METHODS),
        },
        "rpc_s": {"lan": 0.0015},
        "floor_s": {"ciar": 0.07},
        "largest_residual_share": 0.01,
    }


def test_the_tables_fit_100_columns_and_lose_nothing(everything: list[Measurement]) -> None:
    rows = rows_of(everything)
    console = Console(width=WIDTH, record=True, file=None)
    for sheet in sheets(rows, PROFILES):
        assert console.measure(to_table(sheet)).maximum <= WIDTH
        with console.capture() as captured:
            console.print(to_table(sheet))
        assert "…" not in captured.get()
    assert sum(len(sheet.rows) for sheet in sheets(rows, PROFILES)) == 2 * len(rows)


def test_the_report_names_machine_methods_networks_and_sources(
    everything: list[Measurement], summary: dict[str, Any]
) -> None:
    text = markdown(summary, rows_of(everything), PROFILES, "server pinned to core 1")
    assert "server pinned to core 1" in text
    assert all(f"| `{name}` |" in text for name in (*METHODS, *PROFILES))
    assert all(profile.source in text for profile in PROFILES.values())
    lines = "\n".join(header(summary, "processes not pinned"))
    assert "small rpc lan 1.5 ms" in lines
    assert "the server at cloud.example:50051 as it was started" in lines
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| ciar")}
    assert widths == {14}


@pytest.mark.parametrize(("share", "warned"), [(0.01, False), (-0.2, True), (0.2, True)])
def test_a_large_residual_is_said(summary: dict[str, Any], share: float, warned: bool) -> None:
    lines = list(footer(summary | {"largest_residual_share": share}))
    assert any("more than 5 %" in line for line in lines) is warned


def test_plots_are_written_for_one_network_and_for_all(everything: list[Measurement], tmp_path: Path) -> None:
    for count, name in ((1, "one.png"), (len(METHODS), "network.png"), (len(everything), "all.png")):
        write_plots(rows_of(everything[:count]), tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.width > 1000
