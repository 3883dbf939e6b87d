"""Cabins, boats and plants.

Flows in: a canvas, the light, a place. Flows out: paint. Every thing is at least two cells large and on the grid.
"""

from __future__ import annotations

import numpy as np

from ciar.training.scenes.canvas import Box, Canvas, Field
from ciar.training.scenes.palette import PINE, SNOW, Colour, Light, rgb

WINDOW = rgb(255, 214, 104)


def _polygon(canvas: Canvas, box: Box, *corners: tuple[float, float]) -> Field:
    """Coverage of a convex polygon, its corners clockwise."""
    inside = np.full((box.y.size, box.x.size), 1, np.float32)
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        length = np.hypot(x1 - x0, y1 - y0)
        normal_x, normal_y = np.float32((y0 - y1) / length), np.float32((x1 - x0) / length)
        np.minimum(inside, (box.x - np.float32(x0)) * normal_x + (box.y - np.float32(y0)) * normal_y, out=inside)
    return canvas.cover(inside)


def paint_cabin(canvas: Canvas, light: Light, x: float, base: float) -> None:
    """A log cabin, four cells wide: gabled front, long side, door, windows, chimney."""
    wall, side = rgb(158, 98, 60) * light.tint, rgb(122, 72, 46) * light.tint
    roof = rgb(164, 62, 50) * light.tint
    edge = roof * np.float32(0.78)
    left, front, right = x - 0.15, x - 0.02, x + 0.15  # the front from left to `front`, the side up to `right`
    eaves, ridge = base - 0.115, base - 0.215
    middle = (left + front) / 2
    box = canvas.box(ridge - 0.06, base, left - 0.03, right + 0.03)

    def fill(colour: Colour, *corners: tuple[float, float]) -> None:
        canvas.paint(colour, _polygon(canvas, box, *corners), box)

    fill(
        rgb(112, 84, 80) * light.tint,
        (x + 0.06, ridge - 0.04),
        (x + 0.10, ridge - 0.04),
        (x + 0.10, eaves),
        (x + 0.06, eaves),
    )
    fill(side, (front, eaves - 0.01), (right, eaves - 0.01), (right, base), (front, base))
    fill(wall, (left, eaves), (middle, ridge + 0.01), (front, eaves), (front, base), (left, base))
    fill(roof, (middle, ridge), (right - 0.045, ridge), (right + 0.022, eaves + 0.012), (front + 0.022, eaves + 0.012))
    fill(
        edge,
        (middle, ridge - 0.012),
        (middle, ridge + 0.018),
        (left - 0.014, eaves + 0.022),
        (left - 0.024, eaves + 0.002),
    )
    fill(
        edge,
        (middle, ridge - 0.012),
        (front + 0.024, eaves + 0.010),
        (front + 0.010, eaves + 0.022),
        (middle, ridge + 0.018),
    )
    pane = WINDOW if light.dark else (WINDOW * light.tint if light.tint.min() < 0.7 else rgb(74, 92, 120) * light.tint)
    fill(
        pane,
        (x + 0.035, eaves + 0.03),
        (x + 0.095, eaves + 0.03),
        (x + 0.095, eaves + 0.075),
        (x + 0.035, eaves + 0.075),
    )
    fill(
        rgb(82, 48, 34) * light.tint,
        (middle - 0.02, base - 0.075),
        (middle + 0.02, base - 0.075),
        (middle + 0.02, base),
        (middle - 0.02, base),
    )


def paint_boat(canvas: Canvas, light: Light, x: float, base: float) -> None:
    """A sailing boat, three cells wide."""
    box = canvas.box(base - 0.22, base + 0.03, x - 0.1, x + 0.1)

    def fill(colour: Colour, *corners: tuple[float, float]) -> None:
        canvas.paint(colour, _polygon(canvas, box, *corners), box)

    fill(rgb(250, 250, 246) * light.tint, (x + 0.004, base - 0.21), (x + 0.085, base - 0.05), (x + 0.004, base - 0.05))
    fill(rgb(226, 92, 74) * light.tint, (x - 0.012, base - 0.18), (x - 0.012, base - 0.05), (x - 0.07, base - 0.05))
    fill(
        rgb(96, 62, 46) * light.tint,
        (x - 0.006, base - 0.215),
        (x + 0.006, base - 0.215),
        (x + 0.006, base - 0.03),
        (x - 0.006, base - 0.03),
    )
    fill(
        rgb(120, 72, 52) * light.tint,
        (x - 0.095, base - 0.035),
        (x + 0.095, base - 0.035),
        (x + 0.06, base + 0.018),
        (x - 0.06, base + 0.018),
    )


def paint_pine(canvas: Canvas, light: Light, x: float, base: float, height: float, sun: float, snowy: bool) -> None:
    """A conifer of three tiers with a lit side."""
    half = height * 0.27
    box = canvas.box(base - height, base, x - half, x + half)
    down = np.clip((box.y - np.float32(base - height)) / np.float32(height), 0, 1)  # (h, 1)
    tier = (down * np.float32(3.3)) % 1
    reach = (
        np.float32(half) * (np.float32(0.34) + np.float32(0.66) * tier) * (np.float32(0.42) + np.float32(0.58) * down)
    )
    reach = np.where(down > np.float32(0.91), np.float32(half * 0.2), reach)
    aside = box.x - np.float32(x)
    leaf = PINE * light.tint
    lit = np.float32(0.82) + np.float32(0.42) * canvas.cover(aside * np.float32(sun))
    colour = leaf * lit[..., None]
    if snowy:
        top = np.float32(0.85) * np.clip(1.6 - 3.2 * tier, 0, 1) * (down < np.float32(0.91))
        colour = colour + (SNOW * light.tint - colour) * top[..., None]
    ends = canvas.cover(box.y - np.float32(base - height)) * canvas.cover(np.float32(base) - box.y)
    canvas.paint(colour, canvas.cover(reach - np.abs(aside)) * ends, box)


def paint_tree(canvas: Canvas, light: Light, x: float, base: float, height: float, sun: float, crown: Colour) -> None:
    """A broad-leaved tree: a round crown on a trunk."""
    radius = height * 0.36
    box = canvas.box(base - height, base, x - radius, x + radius)
    trunk = canvas.cover(np.float32(height * 0.055) - np.abs(box.x - np.float32(x)))
    trunk = trunk * canvas.cover(np.float32(base) - box.y) * canvas.cover(box.y - np.float32(base - height * 0.5))
    canvas.paint(rgb(98, 66, 46) * light.tint, trunk, box)
    across, up = box.x - np.float32(x), box.y - np.float32(base - height + radius)
    inside = canvas.cover(np.float32(radius) - np.hypot(across, up * np.float32(0.92)))
    towards = np.clip((across * np.float32(sun) - up) / np.float32(radius) * np.float32(1.2) + np.float32(0.4), 0, 1)
    canvas.paint((crown * light.tint) * (np.float32(0.80) + np.float32(0.34) * towards)[..., None], inside, box)


def paint_cactus(canvas: Canvas, light: Light, x: float, base: float, height: float, sun: float) -> None:
    """A saguaro: a trunk with two arms."""
    box = canvas.box(base - height, base, x - height * 0.4, x + height * 0.4)
    across, up = box.x - np.float32(x), np.float32(base) - box.y
    thick = height * 0.115
    inside = _limb(across, up, 0.0, 0.0, height, thick)
    for side, low, tall in ((-0.30, 0.36, 0.74), (0.30, 0.28, 0.62)):
        inside = np.maximum(inside, _limb(across, up, side * height, low * height, tall * height, thick * 0.8))
        bar = np.minimum(
            np.float32(thick * 0.75) - np.abs(up - np.float32(low * height)),
            np.float32(abs(side) * height) - np.abs(across),
        )
        inside = np.maximum(inside, np.minimum(bar, across * np.float32(np.sign(side)) + np.float32(thick)))
    lit = np.float32(0.85) + np.float32(0.3) * canvas.cover(across * np.float32(sun))
    canvas.paint((rgb(74, 130, 72) * light.tint) * lit[..., None], canvas.cover(inside), box)


def _limb(across: Field, up: Field, x: float, low: float, high: float, thick: float) -> Field:
    """Distance inside an upright rod with a round upper end; its lower end is flat."""
    beyond = np.maximum(up - np.float32(high - thick), 0)
    return np.minimum(np.float32(thick) - np.hypot(across - np.float32(x), beyond), up - np.float32(low - thick))
