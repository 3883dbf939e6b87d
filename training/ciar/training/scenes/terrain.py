"""Mountains, hills and the ground in front, lit from one side.

Flows in: a canvas, light and land. Flows out: paint. Knows nothing of words.
"""

from __future__ import annotations

import numpy as np

from ciar.training.scenes.canvas import Canvas, Field, wave, zigzag
from ciar.training.scenes.palette import SNOW, Colour, Land, Light, mix


def paint_mountains(
    canvas: Canvas,
    rng: np.random.Generator,
    light: Light,
    land: Land,
    base: float,
    height: float,
    far: float,
    sun: float,
) -> None:
    """A range of peaks, each with a lit and a shaded face and snow on top.

    base: where it stands; height: of the tallest peak; far: 0 … 1, how much the air veils it; sun: −1 left, 1 right.
    """
    count = int(rng.integers(2, 4))
    at = ((np.arange(count) + rng.uniform(0.2, 0.8, count)) / count).astype(np.float32)
    tall = (height * rng.uniform(0.6, 1.0, count)).astype(np.float32)
    steep = rng.uniform(0.62, 0.95, count).astype(np.float32)
    x = canvas.line
    rough = np.float32(0.008) * zigzag(x * np.float32(rng.uniform(9, 13)) + np.float32(rng.random()))
    sides = np.float32(base) - tall[:, None] + steep[:, None] * np.abs(x - at[:, None]) + rough  # (P, S)
    owner = sides.argmin(0)  # (S,)
    edge = np.minimum(sides.min(0), np.float32(base + 0.01))  # (S,)
    box = canvas.box(float(edge.min()), base + 0.02)
    below = box.y - (np.float32(base) - tall)[owner]  # (h, S): under the summit
    drift = rng.uniform(-0.25, 0.25, count).astype(np.float32)[owner]
    spine = at[owner] + drift * below + np.float32(0.05) * below * 4 * zigzag(below * np.float32(11))
    lit = canvas.cover((box.x - spine) * np.float32(sun))  # (h, S)
    veil = light.horizon * np.float32(0.97)
    faces = [mix(land.rock * light.tint * np.float32(k), veil, far) for k in (0.72, 1.22)]
    snows = [mix(SNOW * light.tint * np.float32(k), veil, far * 0.8) for k in (0.80, 1.03)]
    colour = faces[0] + (faces[1] - faces[0]) * lit[..., None]  # (h, S, 3)
    if land.cap:
        cap = tall[owner] * np.float32(land.cap) * (1 + np.float32(0.30) * zigzag(x * np.float32(13)))
        white = canvas.cover(cap - below)[..., None]
        colour += (snows[0] + (snows[1] - snows[0]) * lit[..., None] - colour) * white
    foot = np.clip(1 - (np.float32(base) - box.y) / np.float32(height), 0, 1)[..., None] ** 2
    colour += (veil - colour) * (np.float32(0.55) * foot)
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
