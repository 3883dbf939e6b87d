"""Mountains, hills and the ground in front, lit from one side.

Flows in: a canvas, light and land. Flows out: paint. Knows nothing of words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ciar.training.scenes.canvas import GRID, Canvas, Field, wave, zigzag
from ciar.training.scenes.palette import SNOW, Colour, Land, Light, mix


@dataclass(frozen=True)
class Range:
    """A range of mountains."""

    height: tuple[int, int]
    """Least and greatest height of a peak, in steps of the grid."""
    slope: float
    far: float
    """0 … 1, how much the air veils it."""


FAR_RANGE, NEAR_RANGE = Range((7, 11), 1.0, 0.42), Range((3, 6), 0.75, 0.12)


def paint_mountains(
    canvas: Canvas, rng: np.random.Generator, light: Light, land: Land, kind: Range, base: float, sun: float
) -> None:
    """A range of peaks, each with a lit and a shaded face and snow on top.

    base: where it stands, on the grid as its peaks are; sun: −1 left, 1 right. Slopes are few and start on the grid, so
    that a tokenizer needs few codes for them.
    """
    count = int(rng.integers(2, 5))
    at = np.round((np.arange(count) + rng.uniform(0.1, 0.9, count)) * (GRID / count)).astype(np.float32) / GRID
    tall = rng.integers(kind.height[0], kind.height[1] + 1, count).astype(np.float32) / GRID
    sides = np.float32(base) - tall[:, None] + np.float32(kind.slope) * np.abs(canvas.line - at[:, None])  # (P, S)
    owner = sides.argmin(0)  # (S,)
    edge = np.minimum(sides.min(0), np.float32(base + 0.01))  # (S,)
    box = canvas.box(float(edge.min()), base + 0.02)
    below = box.y - (np.float32(base) - tall)[owner]  # (h, S): under the summit
    drift = rng.choice([-0.25, 0.25], count).astype(np.float32)[owner]
    spine = at[owner] + drift * below + np.float32(0.02) * (zigzag(below * 8) + 1)
    lit = canvas.cover((box.x - spine) * np.float32(sun))[..., None]  # (h, S, 1)
    veil = light.horizon * np.float32(0.97)
    shade, bright = (mix(land.rock * light.tint * np.float32(k), veil, kind.far) for k in (0.72, 1.22))
    colour = shade + (bright - shade) * lit  # (h, S, 3)
    if land.cap:
        shade, bright = (mix(SNOW * light.tint * np.float32(k), veil, kind.far * 0.8) for k in (0.80, 1.03))
        depth = np.round(tall * np.float32(land.cap * GRID))[owner] / GRID  # (S,)
        white = canvas.cover(depth * (1 + np.float32(0.25) * zigzag(canvas.line * 16)) - below)[..., None]
        colour += (shade + (bright - shade) * lit - colour) * white
    foot = np.clip(1 - (np.float32(base) - box.y) * np.float32(GRID / kind.height[1]), 0, 1)[..., None] ** 2
    colour += (veil - colour) * (np.float32(0.5) * foot)
    canvas.paint(colour, canvas.cover(box.y - edge), box)


def paint_hills(
    canvas: Canvas,
    rng: np.random.Generator,
    light: Light,
    colour: Colour,
    base: float,
    height: float,
    far: float,
    sun: float,
) -> None:
    """One rolling line of hills, brighter where it leans towards the light; it reaches down to the lower edge."""
    curve = wave(rng, canvas.line, (rng.uniform(1.0, 1.6), rng.uniform(2.2, 3.2)))
    edge = np.float32(base) - np.float32(height) * (np.float32(0.5) + np.float32(0.5) * curve)
    paint_slope(canvas, light, colour, edge, 0.16, far, sun)


def paint_slope(
    canvas: Canvas, light: Light, colour: Colour, edge: Field, depth: float, far: float, sun: float
) -> None:
    """All that lies under an edge (S,); its relief fades so far below it."""
    box = canvas.box(float(edge.min()))
    under = box.y - edge  # (h, S)
    lean = np.tanh(np.gradient(edge) * np.float32(canvas.size * -4.0 * sun))  # (S,): 1 where it faces the light
    fade = np.clip(1 - under / np.float32(depth), 0, 1)
    shade = 1 + fade * (np.float32(0.06) + np.float32(0.15) * lean) - np.float32(0.10) * np.clip(under * 3, 0, 1)
    painted = (colour * light.tint) * shade[..., None]
    if far:
        painted += (light.horizon - painted) * np.float32(far)
    canvas.paint(painted, canvas.cover(under), box)


def paint_ground(
    canvas: Canvas, rng: np.random.Generator, light: Light, land: Land, top: float, relief: float, sun: float
) -> None:
    """The land in front in two folds, from its far colour to its near one. relief: height of the folds."""
    for share, y in ((0.0, top), (1.0, top + 0.45 * (1 - top))):
        curve = wave(rng, canvas.line, (rng.uniform(0.6, 1.0), rng.uniform(1.3, 2.0)))
        edge = np.float32(y) + np.float32(relief) * curve
        paint_slope(canvas, light, mix(land.far, land.near, share), edge, 0.22, 0.0, sun)
