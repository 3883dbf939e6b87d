"""What the pixels of a picture prove: its ground, its colour, and whether it is filled.

Flows in: pictures. Flows out: palette indices and coverage masks; the other way round, pictures of drawings. Knows
nothing of models or concepts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ciar.training.curation import STYLES, thick_share
from ciar.training.palette import FOREGROUNDS, GROUNDS

Pictures = NDArray[np.uint8]  # (N, 64, 64, 3)

BORDER = 4
"""Pixels of the rim that a drawing never reaches."""
NO_INK = -1
"""In place of a colour where nothing is drawn."""
_LEAST_CONTRAST = 40.0  # distance in RGB below which a pixel is still ground
_FOREGROUND_RGB = np.array(list(FOREGROUNDS.values()), np.float64)  # (8, 3)
_GROUND_RGB = np.array(list(GROUNDS.values()), np.float64)  # (6, 3)


@dataclass(frozen=True)
class Reading:
    """What pictures show, row by row."""

    ground: NDArray[np.int64]  # (N,) index into GROUNDS
    foreground: NDArray[np.int64]  # (N,) index into FOREGROUNDS, or NO_INK
    coverage: NDArray[np.uint8]  # (N, 64, 64) how much of a pixel is foreground


def paint(coverage: NDArray[np.uint8], foreground: NDArray[np.int64], ground: NDArray[np.int64]) -> Pictures:
    """Pictures of drawings (N, 64, 64) in palette colours (N,): ground + coverage · (foreground − ground)."""
    below, above = _GROUND_RGB[ground][:, None, None], _FOREGROUND_RGB[foreground][:, None, None]  # (N, 1, 1, 3)
    return np.round(below + coverage[..., None] / 255.0 * (above - below)).astype(np.uint8)


def read_pixels(pictures: Pictures) -> Reading:
    """The ground is the palette's nearest to the median of the rim; the foreground the nearest to the median ink.

    Ink is what differs from the rim at least three quarters as much as the picture's extreme (its 99.5 % quantile).
    Coverage is the projection of a pixel on the line from the rim's colour to the ink's.
    """
    pixels = pictures.astype(np.float64)
    rim = np.ones(pictures.shape[1:3], bool)
    rim[BORDER:-BORDER, BORDER:-BORDER] = False
    below = np.median(pixels[:, rim], axis=1)  # (N, 3)
    contrast = np.linalg.norm(pixels - below[:, None, None], axis=-1)  # (N, 64, 64)
    extreme = np.quantile(contrast, 0.995, axis=(1, 2))  # (N,)
    foreground = np.full(len(pictures), NO_INK)
    coverage = np.zeros(pictures.shape[:3], np.uint8)
    for i in np.flatnonzero(extreme > _LEAST_CONTRAST):
        ink = np.median(pixels[i][contrast[i] >= 0.75 * extreme[i]], axis=0)  # (3,)
        foreground[i] = _nearest(ink[None], _FOREGROUND_RGB)[0]
        line = ink - below[i]
        share = (pixels[i] - below[i]) @ line / (line @ line)  # (64, 64)
        coverage[i] = np.round(255 * np.clip(share, 0, 1))
    return Reading(_nearest(below, _GROUND_RGB), foreground, coverage)


def _nearest(colours: NDArray[np.float64], palette: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the palette's nearest to colours (N, 3): (N,)."""
    return np.linalg.norm(colours[:, None] - palette, axis=-1).argmin(1)


def thick_shares(coverage: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share of the ink that an opening leaves, for drawings (N, 64, 64): (N,); 0 without ink."""
    return np.array([thick_share(mask) for mask in coverage])


def calibrate_style(shares: NDArray[np.float64], style: NDArray[np.int64]) -> float:
    """The thick share from which a drawing is called filled: half way between the styles' nearest drawings.

    The data step names styles by this very share and leaves out what lies between, so on drawings it is right by
    construction; the threshold only decides about pictures that no drawing resembles.
    """
    filled = STYLES.index("filled")
    return float((shares[style == filled].min() + shares[style != filled].max()) / 2)


def style_of_shares(shares: NDArray[np.float64], threshold: float) -> NDArray[np.int64]:
    """Index into STYLES of thick shares (N,)."""
    return np.where(shares >= threshold, STYLES.index("filled"), STYLES.index("outline"))
