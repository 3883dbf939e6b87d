"""Lake, river and sea.

Flows in: a canvas on which all that stands behind the water is painted. Flows out: paint.
"""

from __future__ import annotations

import numpy as np

from ciar.training.scenes.canvas import Canvas, Field, wave
from ciar.training.scenes.palette import Colour, Land, Light, mix, rgb

DEEP = rgb(36, 96, 140)


def paint_lake(canvas: Canvas, rng: np.random.Generator, light: Light, top: float, shore: Field) -> None:
    """Still water from `top` down to the near shore (S,), with the picture above it upside down."""
    box = canvas.box(top)
    first = box.rows.start
    rows = np.clip(2 * first - np.arange(first, canvas.size) - 1, 0, first - 1)
    mirror = canvas.pixels[rows]  # (h, S, 3)
    water = mirror * np.float32(0.74) + DEEP * light.tint * np.float32(0.26)
    _glints(canvas, rng, water, box.y, top, 0.12)
    coverage = canvas.cover(np.minimum(box.y - np.float32(top), shore - box.y))
    canvas.paint(water, coverage, box)


def paint_sea(canvas: Canvas, rng: np.random.Generator, light: Light, top: float, shore: Field) -> None:
    """Open water from a straight horizon to the near shore (S,), with lines of waves and a white edge."""
    box = canvas.box(top)
    share = np.clip((box.y - np.float32(top)) / np.float32(0.35), 0, 1)[..., None]
    far, near = mix(light.horizon, DEEP * light.tint, 0.55), DEEP * light.tint * np.float32(1.05)
    water = (far + (near - far) * share) + np.zeros((1, canvas.size, 1), np.float32)
    _glints(canvas, rng, water, box.y, top, 0.30)
    foam = np.clip(1 - np.abs(box.y - shore + np.float32(0.012)) * np.float32(60), 0, 1)[..., None]
    water += (rgb(250, 252, 255) * light.tint - water) * foam * np.float32(0.8)
    canvas.paint(water, canvas.cover(np.minimum(box.y - np.float32(top), shore - box.y)), box)


def _glints(canvas: Canvas, rng: np.random.Generator, water: Field, y: Field, top: float, strength: float) -> None:
    """Brighter lines that lie flat, wider apart when nearer; changes `water` (h, S, 3)."""
    x = canvas.line
    for k in range(4):
        line = top + 0.025 + 0.05 * k + 0.008 * k * k
        left, width = rng.uniform(0, 0.7), rng.uniform(0.2, 0.5)
        along = np.clip(1 - np.abs((x - np.float32(left + width / 2)) / np.float32(width / 2)) ** 4, 0, 1)
        across = np.clip(1 - np.abs(y - np.float32(line)) * np.float32(90 - 12 * k), 0, 1)
        water += (255 - water) * (np.float32(strength) * along * across)[..., None]


def river_course(rng: np.random.Generator) -> tuple[float, float, float]:
    """Random course of a river: where it begins, how far it swings, the phase of its bends."""
    return rng.uniform(0.3, 0.7), rng.choice([-1.0, 1.0]) * rng.uniform(0.12, 0.2), rng.uniform(-0.4, 0.4)


def river_middle(course: tuple[float, float, float], y: Field, top: float) -> Field:
    """Its middle at heights y."""
    start, swing, phase = course
    along = np.clip((y - np.float32(top)) / np.float32(1 - top), 0, 1)
    bends = np.sin(np.float32(np.pi * 2) * np.sqrt(along) * np.float32(1.15) + np.float32(phase))
    return np.float32(start) + np.float32(swing) * (np.float32(0.25) + along) * bends


def paint_river(canvas: Canvas, light: Light, land: Land, top: float, course: tuple[float, float, float]) -> None:
    """A winding band that widens towards the viewer, with a darker bank."""
    box = canvas.box(top)
    along = np.clip((box.y - np.float32(top)) / np.float32(1 - top), 0, 1)
    half = np.float32(0.012) + np.float32(0.13) * along ** np.float32(1.3)
    aside = np.abs(box.x - river_middle(course, box.y, top))
    started = canvas.cover(box.y - np.float32(top + 0.006))
    bank: Colour = land.near * light.tint * np.float32(0.72)
    canvas.paint(bank, canvas.cover(half + np.float32(0.012) - aside) * started, box)
    far, near = mix(light.horizon, DEEP * light.tint, 0.25), mix(light.zenith, DEEP * light.tint, 0.45)
    canvas.paint(far + (near - far) * along[..., None], canvas.cover(half - aside) * started, box)


def shore_line(canvas: Canvas, rng: np.random.Generator) -> Field:
    """Where the near shore meets the water: (S,)."""
    return np.float32(0.82) + np.float32(0.025) * wave(rng, canvas.line, (rng.uniform(0.6, 1.0), 1.9))
