"""Pictures judged mode by mode: good ones, the same ones, worse ones, and input that does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ciar.benchmarks.evaluation.judges import Judges
from ciar.benchmarks.evaluation.pixels import paint
from ciar.benchmarks.evaluation.quality import ModeQuality, QualityReport, judge_pictures, reference_drawings
from ciar.shared.errors import InvalidRequest
from ciar.training.dataset import SPLITS

COUNT, DIRECTIONS = 24, 6


@pytest.fixture(scope="session")
def labels(judges: Judges) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.column_stack([rng.integers(size, size=COUNT) for size in judges.sizes])


@pytest.fixture(scope="session")
def drawings(judges: Judges, labels: np.ndarray) -> np.ndarray:
    """What a perfect pair would draw."""
    return reference_drawings(judges.data, labels, np.random.default_rng(5), held_out=False)[0]


@pytest.fixture(scope="session")
def report(judges: Judges, labels: np.ndarray, drawings: np.ndarray) -> QualityReport:
    same = np.repeat(judges.data.masks[:1], COUNT, axis=0)  # one drawing, whatever is asked for
    colours = (labels[:, 2:] + 1) % judges.sizes[2:]
    touched = drawings.copy()
    touched[:, 30:40, 30:40] = 0
    pictures = {
        "cloud": drawings,
        "lossless": drawings.copy(),
        "touched": touched,
        "device": paint(same, colours[:, 0], colours[:, 1]),
    }
    return judge_pictures(pictures, labels, judges, num_directions=DIRECTIONS, num_resamples=40)


@pytest.fixture
def mode(report: QualityReport) -> Callable[[str], ModeQuality]:
    return lambda name: next(m for m in report.modes if m.mode == name)


def test_good_pictures_are_good(report: QualityReport, mode: Callable[[str], ModeQuality]) -> None:
    cloud = mode("cloud")
    assert cloud.all_right == 1
    assert cloud.concept_top1 >= 0.9
    assert cloud.similarity > 0.5
    assert cloud.frechet < 3 * report.floor_frechet
    assert (report.num_pictures, report.num_directions) == (COUNT, DIRECTIONS)
    assert 0 < report.explained < 1


def test_the_same_pictures_have_the_same_figures(mode: Callable[[str], ModeQuality]) -> None:
    cloud, lossless = mode("cloud"), mode("lossless")
    assert replace(lossless, mode="cloud") == cloud
    assert lossless.frechet_to_base == pytest.approx(0, abs=1e-6)
    assert lossless.kernel_to_base == pytest.approx(0, abs=1e-9)
    assert (lossless.pixel_difference, lossless.differing) == (0, 0)
    for ratio in (lossless.frechet_ratio, lossless.similarity_ratio, lossless.recall_ratio):
        assert (ratio.value, ratio.low, ratio.high) == (1, 1, 1)


def test_wrong_pictures_are_worse_in_every_figure(mode: Callable[[str], ModeQuality]) -> None:
    cloud, device = mode("cloud"), mode("device")
    assert device.ground_right == device.foreground_right == device.all_right == 0
    assert device.concept_top1 < 0.6 < cloud.concept_top1
    assert device.frechet > cloud.frechet
    assert device.kernel > cloud.kernel
    assert device.similarity < cloud.similarity
    assert device.recall < cloud.recall
    assert device.frechet_ratio.value > 1
    assert device.similarity_ratio.high < 1
    assert device.differing == 1


def test_a_patch_counts_as_a_visible_difference(mode: Callable[[str], ModeQuality]) -> None:
    touched = mode("touched")
    assert 0.5 < touched.differing <= 1  # where the drawing was black there, nothing changed
    assert 0 < touched.pixel_difference < 255 * 100 / 4096
    assert touched.frechet_to_base > 0


def test_reports_in_json_and_markdown(report: QualityReport) -> None:
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [m["mode"] for m in plain["modes"]] == ["cloud", "lossless", "touched", "device"]
    assert plain["judges"]["num_drawings"] == report.judges.num_drawings
    lines = report.markdown()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 * (2 + 4 + 1)
    for table in (rows[:7], rows[7:]):
        assert len({line.count("|") for line in table}) == 1
    assert f"{COUNT} pictures a mode" in lines[-1]
    assert "EfficientNet-Lite0" in lines[-1]


def test_reference_prefers_held_out_drawings_and_falls_back(judges: Judges) -> None:
    labels = np.array([[concept, style, 0, 0] for concept in range(4) for style in range(2)])
    rng = np.random.default_rng(0)
    assert reference_drawings(judges.data, labels, rng, held_out=True)[1] == 1
    assert reference_drawings(judges.data, labels, rng, held_out=False)[1] == 0
    train = np.full_like(judges.data.split, SPLITS.index("train"))
    pictures, share = reference_drawings(replace(judges.data, split=train), labels, rng, held_out=True)
    assert share == 0
    assert judges.read(pictures, labels)[0].all()
    outline_only = replace(judges.data, style=np.ones_like(judges.data.style))
    assert len(reference_drawings(outline_only, labels, rng, held_out=True)[0]) == len(labels)


def test_says_what_does_not_fit(judges: Judges, labels: np.ndarray, drawings: np.ndarray) -> None:
    with pytest.raises(InvalidRequest, match=r"24 a mode are too few .* in 64 dimensions; draw at least 128"):
        judge_pictures({"cloud": drawings}, labels, judges)
    with pytest.raises(InvalidRequest, match="the base 'cloud' is not among the modes ciar"):
        judge_pictures({"ciar": drawings}, labels, judges, num_directions=DIRECTIONS)
    with pytest.raises(InvalidRequest, match=r"those of cloud are uint8 .23, 64, 64, 3., must be uint8"):
        judge_pictures({"cloud": drawings[1:]}, labels, judges, num_directions=DIRECTIONS)
    with pytest.raises(InvalidRequest, match=r"labels: must be .N, 4., indices below 4, 2, 8, 6"):
        judge_pictures({"cloud": drawings}, labels + np.array([4, 0, 0, 0]), judges, num_directions=DIRECTIONS)
