"""Sky, sun, moon, stars, clouds, and what falls from them.

Flows in: a canvas, the light, the scene's words. Flows out: paint. Knows nothing of the land.
"""

from __future__ import annotations

import numpy as np

from ciar.training.scenes.canvas import GRID, Canvas, snap, wave
from ciar.training.scenes.palette import Colour, Light, mix, rgb

RADIUS = 0.065
"""Of sun and moon."""


def paint_sky(canvas: Canvas, light: Light, horizon: float) -> None:
    """From the zenith's colour down to the horizon's; fills the canvas."""
    share = np.clip(canvas.line / np.float32(horizon), 0, 1) ** np.float32(1.3)  # (S,)
    canvas.pixels[:] = (light.zenith + (light.horizon - light.zenith) * share[:, None])[:, None]


def paint_disc(canvas: Canvas, light: Light, x: float, y: float, crescent: bool) -> None:
    """Sun or moon with its glow; of a crescent moon, what a second disc leaves."""
    reach = 0.34 if not light.dark else 0.20
    box = canvas.box(y - reach, y + reach, x - reach, x + reach)
    distance = np.hypot(box.x - np.float32(x), box.y - np.float32(y))
    glow = np.clip(1 - distance / np.float32(reach), 0, 1) ** 2
    canvas.paint(light.disc, np.float32(0.55 if not light.dark else 0.28) * glow, box)
    disc = canvas.cover(RADIUS - distance)
    if crescent:
        disc = disc * (
            1 - canvas.cover(RADIUS * 0.92 - np.hypot(box.x - np.float32(x + 0.042), box.y - np.float32(y - 0.012)))
        )
    canvas.paint(light.disc, disc, box)


def paint_stars(
    canvas: Canvas, rng: np.random.Generator, horizon: float, count: int, moon: tuple[float, float]
) -> None:
    """Small dots on the grid, none too near the moon."""
    xs, ys = rng.integers(1, GRID, count) / GRID, rng.integers(1, int(horizon * GRID * 0.8), count) / GRID
    away = np.hypot(xs - moon[0], ys - moon[1]) > 2 * RADIUS
    dots(canvas, xs[away], ys[away], 0.010, rgb(226, 230, 250), 0.85)


def dots(canvas: Canvas, xs: np.ndarray, ys: np.ndarray, radius: float, colour: Colour, strength: float) -> None:
    """Round spots, all of one size."""
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        box = canvas.box(y - radius, y + radius, x - radius, x + radius)
        inside = np.float32(radius) - np.hypot(box.x - np.float32(x), box.y - np.float32(y))
        canvas.paint(colour, np.float32(strength) * canvas.cover(inside), box)


def paint_clouds(canvas: Canvas, rng: np.random.Generator, light: Light, columns: list[float]) -> None:
    """One heap of round puffs with a flat base over each of these columns."""
    for x in columns:
        scale, y = rng.choice([0.8, 1.0, 1.2]), snap(rng.uniform(0.10, 0.30))
        puffs = [(-0.11, 0.035), (-0.05, 0.060), (0.025, 0.075), (0.095, 0.050), (0.145, 0.028)]
        if rng.random() < 0.5:
            puffs = [(-dx, r) for dx, r in puffs]
        _cloud(canvas, light, x, y, [(dx * scale, r * scale) for dx, r in puffs])


def _cloud(canvas: Canvas, light: Light, x: float, y: float, puffs: list[tuple[float, float]]) -> None:
    top = max(radius for _, radius in puffs) * 1.35
    box = canvas.box(y - top, y, x - 0.22, x + 0.22)
    inside = np.full((box.y.size, box.x.size), -1, np.float32)
    for dx, radius in puffs:
        across, up = box.x - np.float32(x + dx), box.y - np.float32(y - radius * 0.35)
        np.maximum(inside, np.float32(radius) - np.hypot(across, up), out=inside)
    coverage = canvas.cover(np.minimum(inside, np.float32(y) - box.y))
    share = np.clip((box.y - np.float32(y - top)) / np.float32(top), 0, 1)[..., None]
    below = mix(light.cloud, light.horizon, 0.45) * np.float32(0.94)
    canvas.paint(light.cloud + (below - light.cloud) * share, coverage, box)


def paint_overcast(canvas: Canvas, rng: np.random.Generator, light: Light) -> None:
    """A heavy bank of cloud along the upper edge."""
    base = 0.15
    box = canvas.box(0, base + 0.12)
    inside = np.float32(base - 0.05) - box.y + np.zeros_like(box.x)
    for k in range(6):
        x, radius = snap((k + 0.5) / 6 + rng.uniform(-0.03, 0.03)), rng.choice([0.09, 0.11, 0.13])
        np.maximum(
            inside,
            np.float32(radius) - np.hypot(box.x - np.float32(x), (box.y - np.float32(base - 0.03)) * np.float32(1.25)),
            out=inside,
        )
    share = np.clip(box.y / np.float32(base + 0.1), 0, 1)[..., None]
    low = light.cloud * np.float32(0.80)
    canvas.paint(light.cloud + (low - light.cloud) * share, canvas.cover(inside), box)


def paint_fog(canvas: Canvas, rng: np.random.Generator, light: Light, horizon: float) -> None:
    """A veil, thickest at the horizon."""
    box = canvas.box(horizon - 0.34)
    below = (box.y - np.float32(horizon)) + np.float32(0.04) * wave(rng, canvas.line, (1.3, 2.6))  # (h, S)
    thick = np.clip(1 - np.abs(below) / np.where(below < 0, np.float32(0.24), np.float32(0.5)), 0, 1)
    canvas.paint(light.mist, np.float32(0.6) * thick, box)


def paint_wisps(canvas: Canvas, rng: np.random.Generator, light: Light, horizon: float) -> None:
    """Long pale shreds of fog that lie flat, before and behind the horizon."""
    for k in range(4):
        x, y = rng.uniform(0.0, 1.0), snap(horizon + (-0.14, -0.03, 0.08, 0.19)[k])
        wide, high = rng.uniform(0.30, 0.45), 0.035
        box = canvas.box(y - high, y + high, x - wide, x + wide)
        distance = ((box.x - np.float32(x)) / np.float32(wide)) ** 2 + ((box.y - np.float32(y)) / np.float32(high)) ** 2
        canvas.paint(light.mist * np.float32(1.03), np.float32(0.75) * np.clip(1 - distance, 0, 1), box)


def paint_rain(canvas: Canvas, rng: np.random.Generator, light: Light) -> None:
    """Slanting streaks over the whole picture, on the grid."""
    colour = mix(light.mist, rgb(255, 255, 255), 0.35)
    height, slant, half = 0.09, 0.32, 0.009
    for x, y in _scatter(rng, 6, 5):
        box = canvas.box(y, y + height, x - slant * height - half, x + half)
        down = box.y - np.float32(y)
        inside = np.float32(half) - np.abs(box.x - np.float32(x) + np.float32(slant) * down)
        ends = np.minimum(down, np.float32(height) - down)
        canvas.paint(colour, np.float32(0.7) * canvas.cover(np.minimum(inside, ends)), box)


def paint_snowfall(canvas: Canvas, rng: np.random.Generator, light: Light) -> None:
    """Flakes over the whole picture, on the grid."""
    places = np.array(_scatter(rng, 8, 8))
    colour = mix(rgb(255, 255, 255), light.mist, 0.25 if light.dark else 0.0)
    dots(canvas, places[:, 0], places[:, 1], 0.0125, colour, 0.95)


def _scatter(rng: np.random.Generator, columns: int, rows: int) -> list[tuple[float, float]]:
    """One point in each cell of a coarse lattice, on the grid."""
    jitter = rng.uniform(0.1, 0.9, (rows, columns, 2))
    return [
        (snap((j + jitter[i, j, 0]) / columns), snap((i + jitter[i, j, 1]) / rows))
        for i in range(rows)
        for j in range(columns)
    ]
