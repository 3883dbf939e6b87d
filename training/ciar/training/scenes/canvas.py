"""The brush: an image in float32 on which shapes are laid by their coverage, so that every edge is smooth.

Flows in: colours and coverages. Flows out: pixels. Lengths are in sides of the picture: (0, 0) is the upper left
corner, (1, 1) the lower right one. Knows nothing of landscapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ciar.training.scenes.palette import Colour

Field = NDArray[np.float32]
"""(h, w), or what broadcasts to it."""
GRID = 32
"""Things stand on a grid of so many steps to a side, a quarter of a token's cell: fewer different cells to learn."""


@dataclass(frozen=True)
class Box:
    """A part of the canvas, with the coordinates of its pixels' middles."""

    rows: slice
    columns: slice
    x: Field  # (1, w)
    y: Field  # (h, 1)


class Canvas:
    """Pixels float32 (S, S, 3), 0 … 255."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pixels = np.zeros((size, size, 3), np.float32)
        self.line = ((np.arange(size) + 0.5) / size).astype(np.float32)  # (S,)

    def box(self, top: float = 0.0, bottom: float = 1.0, left: float = 0.0, right: float = 1.0) -> Box:
        """The part between these, and a pixel around it, clipped to the canvas."""
        rows, columns = self._span(top, bottom), self._span(left, right)
        return Box(rows, columns, self.line[None, columns], self.line[rows, None])

    def _span(self, start: float, stop: float) -> slice:
        first = min(max(int(start * self.size) - 1, 0), self.size)
        return slice(first, max(first, min(int(stop * self.size) + 2, self.size)))

    def cover(self, inside: Field) -> Field:
        """Coverage 0 … 1 of pixels so far inside an edge (negative: outside)."""
        return np.clip(inside * np.float32(self.size) + np.float32(0.5), 0, 1)

    def paint(self, colour: Field | Colour, coverage: Field, box: Box) -> None:
        """Lay a colour (3,) or (h, w, 3) over a part, as far as it is covered (h, w)."""
        part = self.pixels[box.rows, box.columns]
        part += (colour - part) * coverage[..., None]

    def finish(self) -> NDArray[np.uint8]:
        """uint8 (S, S, 3)."""
        return np.clip(self.pixels + np.float32(0.5), 0, 255).astype(np.uint8)


def snap(value: float) -> float:
    """The nearest point of the grid."""
    return round(value * GRID) / GRID


def wave(rng: np.random.Generator, x: Field, frequencies: tuple[float, ...]) -> Field:
    """A smooth line, about −1 … 1: a sine for each frequency (periods to a side), the faster the weaker."""
    total = np.zeros_like(x)
    for frequency in frequencies:
        phase, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.0) * frequencies[0] / frequency
        total += np.float32(strength) * np.sin(np.float32(2 * np.pi * frequency) * x + np.float32(phase))
    return total / np.float32(sum(frequencies[0] / f for f in frequencies))


def zigzag(x: Field) -> Field:
    """A triangle wave of period 1 between −1 and 1."""
    return 4 * np.abs(x - np.floor(x + np.float32(0.5))) - 1
