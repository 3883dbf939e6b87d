"""What is painted is what is read: colours, coverage, style."""

from __future__ import annotations

import numpy as np
import pytest

from ciar.benchmarks.evaluation.pixels import (
    NO_INK,
    calibrate_style,
    paint,
    read_pixels,
    style_of_shares,
    thick_shares,
)
from ciar.training.curation import STYLES
from ciar.training.drawn import SHAPES, draw
from ciar.training.palette import FOREGROUNDS, GROUNDS

PAIRS = np.array([(f, g) for f in range(len(FOREGROUNDS)) for g in range(len(GROUNDS))])


def drawings(stroke: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Every shape in every style: masks (N, 64, 64) and styles (N,)."""
    made = [(draw(shape, style, 22, stroke), i) for shape in SHAPES for i, style in enumerate(STYLES)]
    return np.stack([mask for mask, _ in made]), np.array([style for _, style in made])


@pytest.mark.parametrize("style", STYLES)
def test_reads_every_pair_of_colours_even_through_noise(style: str) -> None:
    masks = np.repeat(draw("triangle", style, 22)[None], len(PAIRS), axis=0)
    noise = np.random.default_rng(0).normal(0, 8, (len(PAIRS), 64, 64, 3))
    pictures = np.clip(paint(masks, PAIRS[:, 0], PAIRS[:, 1]) + noise, 0, 255).astype(np.uint8)
    reading = read_pixels(pictures)
    assert np.array_equal(reading.foreground, PAIRS[:, 0])
    assert np.array_equal(reading.ground, PAIRS[:, 1])


def test_coverage_survives_painting() -> None:
    masks, _ = drawings()
    for foreground, ground in PAIRS[::5]:
        colours = np.full(len(masks), foreground), np.full(len(masks), ground)
        back = read_pixels(paint(masks, *colours)).coverage
        assert np.abs(back.astype(int) - masks).max() <= 3  # pictures have whole levels


def test_an_empty_picture_has_no_colour() -> None:
    reading = read_pixels(np.full((1, 64, 64, 3), 255, np.uint8))
    assert reading.foreground[0] == NO_INK
    assert not reading.coverage.any()
    assert reading.ground[0] == list(GROUNDS).index("white")


def test_tells_filled_from_outline() -> None:
    masks, style = drawings()
    threshold = calibrate_style(thick_shares(masks), style)
    others, style = drawings(stroke=5.0)
    assert np.array_equal(style_of_shares(thick_shares(others), threshold), style)
    assert style_of_shares(thick_shares(np.zeros((1, 64, 64), np.uint8)), threshold) == STYLES.index("outline")
