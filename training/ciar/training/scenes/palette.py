"""Every colour of the scenes: the light of an hour, its weather, and what the land is made of.

Flows in: words of the grammar. Flows out: RGB, 0 … 255, float32 (3,). Knows nothing of shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float32]


def rgb(red: float, green: float, blue: float) -> Colour:
    """A colour."""
    return np.array([red, green, blue], np.float32)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """From a (share 0) to b (share 1)."""
    return a + (b - a) * np.float32(share)


@dataclass(frozen=True)
class Light:
    """The sky of an hour in its weather, and what it does to the colours of things."""

    zenith: Colour
    horizon: Colour
    disc: Colour
    """Sun or moon."""
    tint: Colour
    """Colours are multiplied by it, about 0 … 1."""
    cloud: Colour
    mist: Colour
    dark: bool
    """Lamps are lit."""


HOURS = {
    "day": Light(rgb(66, 138, 224), rgb(204, 230, 248), rgb(255, 246, 206), rgb(1, 1, 1),
                 rgb(252, 253, 255), rgb(222, 230, 236), False),
    "sunset": Light(rgb(88, 66, 138), rgb(255, 160, 90), rgb(255, 226, 150), rgb(1.00, 0.75, 0.64),
                    rgb(252, 146, 118), rgb(246, 178, 140), False),
    "dawn": Light(rgb(122, 152, 216), rgb(255, 214, 206), rgb(255, 246, 230), rgb(0.92, 0.83, 0.90),
                  rgb(250, 226, 230), rgb(240, 214, 218), False),
    "night": Light(rgb(8, 14, 46), rgb(44, 62, 118), rgb(244, 243, 226), rgb(0.42, 0.46, 0.66),
                   rgb(60, 74, 122), rgb(82, 98, 140), True),
}  # fmt: skip
GREY = {"fog": 0.25, "rain": 0.60, "snowfall": 0.50}
"""How much of its colour a sky loses in that weather."""
DIM = {"fog": 1.0, "rain": 0.80, "snowfall": 0.95}
"""What it leaves of the brightness."""


def _greyed(colour: Colour, weather: str) -> Colour:
    grey = np.full(3, colour.mean(), np.float32)
    return mix(colour, grey, GREY.get(weather, 0.0)) * np.float32(DIM.get(weather, 1.0))


@cache
def light_of(time: str, weather: str) -> Light:
    """The light of an hour; fog, rain and snowfall take its colour away."""
    hour = HOURS[time]
    high = mix(hour.zenith, hour.horizon, 0.55) if weather in GREY else hour.zenith
    low = mix(hour.zenith, hour.horizon, 0.75) if weather in GREY else hour.horizon
    tint = mix(hour.tint, np.full(3, hour.tint.mean(), np.float32), 0.6 * GREY.get(weather, 0.0))
    return Light(
        _greyed(high, weather), _greyed(low, weather), hour.disc, tint * np.float32(DIM.get(weather, 1.0)),
        _greyed(mix(hour.cloud, hour.zenith, 0.35), weather) if weather in GREY else hour.cloud,
        _greyed(hour.mist, weather), hour.dark,
    )  # fmt: skip


@dataclass(frozen=True)
class Land:
    """What the land is made of, in white light."""

    near: Colour
    far: Colour
    hill: Colour
    rock: Colour
    cap: float
    """Snow on the peaks, as a share of their height."""
    crowns: tuple[Colour, ...]
    """Broad-leaved trees."""


SNOW = rgb(240, 245, 252)
PINE = rgb(36, 88, 58)
ROCK = rgb(112, 116, 136)
LANDS = {
    "meadow": Land(rgb(100, 160, 66), rgb(150, 190, 92), rgb(82, 142, 78), ROCK, 0.34,
                   (rgb(64, 130, 56), rgb(96, 152, 62))),
    "autumn": Land(rgb(172, 112, 50), rgb(204, 150, 78), rgb(180, 92, 44), ROCK, 0.22,
                   (rgb(206, 84, 38), rgb(232, 150, 44))),
    "snow": Land(rgb(224, 233, 246), rgb(240, 244, 250), rgb(182, 202, 230), ROCK, 0.62,
                 (rgb(206, 84, 38),)),
    "desert": Land(rgb(238, 204, 142), rgb(248, 224, 172), rgb(224, 170, 112), rgb(184, 112, 80), 0.0,
                   (rgb(206, 84, 38),)),
}  # fmt: skip
