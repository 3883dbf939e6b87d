"""Cabins, boats and plants.

Flows in: a canvas, the light, a place. Flows out: paint. Every thing is at least two cells large and on the grid.
"""

from __future__ import annotations

import numpy as np

from ciar.training.scenes.canvas import Box, Canvas, Field
from ciar.training.scenes.palette import PINE, SNOW, Colour, Light, rgb

Corners = tuple[tuple[float, float], ...]
"""Of a convex polygon, clockwise; relative to the place where a thing stands, y downwards."""


def _rectangle(left: float, top: float, right: float, bottom: float) -> Corners:
    return (left, top), (right, top), (right, bottom), (left, bottom)


_CABIN: tuple[tuple[Colour, Corners], ...] = (
    (rgb(112, 84, 80), _rectangle(0.06, -0.255, 0.10, -0.115)),  # chimney
    (rgb(122, 72, 46), _rectangle(-0.02, -0.125, 0.15, 0.0)),  # side
    (rgb(158, 98, 60), ((-0.15, -0.115), (-0.085, -0.205), (-0.02, -0.115), (-0.02, 0.0), (-0.15, 0.0))),  # front
    (rgb(164, 62, 50), ((-0.085, -0.215), (0.105, -0.215), (0.172, -0.103), (0.002, -0.103))),  # roof
    (rgb(128, 48, 39), ((-0.085, -0.227), (-0.085, -0.197), (-0.164, -0.093), (-0.174, -0.113))),  # its left edge
    (rgb(128, 48, 39), ((-0.085, -0.227), (0.004, -0.105), (-0.010, -0.093), (-0.085, -0.197))),  # its right edge
    (rgb(82, 48, 34), _rectangle(-0.105, -0.075, -0.065, 0.0)),  # door
)
_PANE = _rectangle(0.035, -0.085, 0.095, -0.040)
_LAMP, _GLASS = rgb(255, 214, 104), rgb(74, 92, 120)
_BOAT: tuple[tuple[Colour, Corners], ...] = (
    (rgb(250, 250, 246), ((0.004, -0.21), (0.085, -0.05), (0.004, -0.05))),  # mainsail
    (rgb(226, 92, 74), ((-0.012, -0.18), (-0.012, -0.05), (-0.07, -0.05))),  # foresail
    (rgb(96, 62, 46), _rectangle(-0.006, -0.215, 0.006, -0.03)),  # mast
    (rgb(120, 72, 52), ((-0.095, -0.035), (0.095, -0.035), (0.06, 0.018), (-0.06, 0.018))),  # hull
)


def _fill(canvas: Canvas, box: Box, colour: Colour, x: float, y: float, corners: Corners) -> None:
    """Paint a convex polygon that stands at (x, y)."""
    inside = np.full((box.y.size, box.x.size), 1, np.float32)
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        length = np.hypot(x1 - x0, y1 - y0)
        normal_x, normal_y = np.float32((y0 - y1) / length), np.float32((x1 - x0) / length)
        distance = (box.x - np.float32(x + x0)) * normal_x + (box.y - np.float32(y + y0)) * normal_y
        np.minimum(inside, distance, out=inside)
    canvas.paint(colour, canvas.cover(inside), box)


def paint_cabin(canvas: Canvas, light: Light, x: float, base: float) -> None:
    """A log cabin, four cells wide: gabled front, side, door, chimney, and a window that is lit when it is dark."""
    box = canvas.box(base - 0.275, base, x - 0.18, x + 0.18)
    for colour, corners in _CABIN:
        _fill(canvas, box, colour * light.tint, x, base, corners)
    dusk = light.tint.min() < 0.7
    pane = _LAMP if light.dark else (_LAMP if dusk else _GLASS) * light.tint
    _fill(canvas, box, pane, x, base, _PANE)


def paint_boat(canvas: Canvas, light: Light, x: float, base: float) -> None:
    """A sailing boat, three cells wide."""
    box = canvas.box(base - 0.22, base + 0.03, x - 0.1, x + 0.1)
    for colour, corners in _BOAT:
        _fill(canvas, box, colour * light.tint, x, base, corners)


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
