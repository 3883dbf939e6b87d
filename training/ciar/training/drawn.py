"""A tiny data set drawn by code, so that the whole chain can run without a download.

Flows in: a seed. Flows out: `Kept` drawings of four shapes. For smoke runs and tests only.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ciar.training.curation import STYLES, Kept
from ciar.training.icons import CANVAS, Drawing, IconSet

SHAPES = ("circle", "square", "triangle", "cross")
SET = IconSet("drawn", "Drawn by code", "this project", "", "Apache-2.0", "")


def _solid(shape: str, radius: float) -> np.ndarray:
    """Solid shape on a 4x finer canvas: bool (256, 256)."""
    y, x = (np.mgrid[: 4 * CANVAS, : 4 * CANVAS] + 0.5) / 4 - CANVAS / 2
    if shape == "circle":
        return x * x + y * y <= radius * radius
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= radius
    if shape == "triangle":
        return (abs(y) <= radius) & (abs(x) <= (y + radius) / 2)
    if shape == "cross":
        return (np.maximum(abs(x), abs(y)) <= radius) & (np.minimum(abs(x), abs(y)) <= radius / 3)
    raise ValueError(f"unknown shape {shape!r}")


def draw(shape: str, style: str, radius: float, stroke: float = 4.0) -> np.ndarray:
    """Coverage mask uint8 (64, 64) of a shape; outlines have that stroke width in pixels."""
    ink = _solid(shape, radius)
    if style == "outline":
        ink &= ndimage.distance_transform_edt(ink) <= 4 * stroke
    coverage = ink.reshape(CANVAS, 4, CANVAS, 4).mean((1, 3))
    return np.round(255 * coverage).astype(np.uint8)


def draw_all(per_group: int, seed: int) -> list[Kept]:
    """`per_group` drawings of every (shape, style), of random size and stroke."""
    rng = np.random.default_rng(seed)
    return [
        Kept(
            Drawing(f"drawn:{shape}-{style}-{i}", shape, draw(shape, style, rng.uniform(18, 24), rng.uniform(3, 5))),
            style,
        )
        for shape in SHAPES
        for style in STYLES
        for i in range(per_group)
    ]
