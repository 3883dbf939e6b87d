"""The named colours of the demonstration pair: what a caption's colour word means in pixels.

Flows in: nothing. Flows out: foreground and ground tables and the pairing used by the ground tokens.
Grounds are light and foregrounds are not, so every pair is legible and no foreground equals a ground.
"""

from __future__ import annotations

import numpy as np

FOREGROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (220, 38, 38),
    "orange": (242, 116, 20),
    "yellow": (236, 180, 8),
    "green": (22, 148, 66),
    "blue": (32, 92, 228),
    "purple": (128, 50, 200),
    "pink": (236, 82, 158),
    "black": (22, 22, 26),
}
GROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "cream": (253, 240, 205),
    "sky": (190, 224, 250),
    "mint": (190, 238, 208),
    "lavender": (218, 206, 246),
    "gray": (204, 207, 212),
}
NUM_PAIRS = len(FOREGROUNDS) * len(GROUNDS)


def pair_index(foreground: int, ground: int) -> int:
    """Index of a (foreground, ground) pair: the id of its ground token."""
    return foreground * len(GROUNDS) + ground


def split_pair(pair: int) -> tuple[int, int]:
    """Inverse of `pair_index`: (foreground, ground)."""
    return divmod(pair, len(GROUNDS))


def pair_table() -> np.ndarray:
    """Colours of every pair, float32 (NUM_PAIRS, 2, 3) in [0, 1]: [:, 0] foreground, [:, 1] ground."""
    rows = [(f, g) for f in FOREGROUNDS.values() for g in GROUNDS.values()]
    return np.asarray(rows, np.float32) / 255.0
