"""What may be in a scene, and the words for it: every word of a caption is something that can be seen.

Flows in: a random generator. Flows out: `Scene`s, their words, the caption vocabulary. Knows nothing of colours or
pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ciar.shared.conditioning import CaptionVocabulary

KINDS: dict[str, tuple[str, ...]] = {
    "relief": ("plain", "hills", "mountains"),
    "time": ("day", "sunset", "dawn", "night"),
    "land": ("meadow", "autumn", "snow", "desert"),
    "weather": ("clear sky", "clouds", "fog", "rain", "snowfall"),
    "water": ("lake", "river", "sea"),
    "moon": ("full moon", "crescent moon"),
    "plants": ("pines", "trees", "forest", "cactus"),
    "cabin": ("cabin",),
    "boat": ("boat",),
}
"""Words by kind; a scene has one of each of the first four, and of the others one or none."""
PHRASES = tuple(word for words in KINDS.values() for word in words)
WEATHER_OF = {
    "meadow": ("clear sky", "clouds", "fog", "rain"),
    "autumn": ("clear sky", "clouds", "fog", "rain"),
    "snow": ("clear sky", "clouds", "fog", "snowfall"),
    "desert": ("clear sky", "clouds"),
}
PLANTS_OF = {
    "meadow": ("pines", "trees", "forest"),
    "autumn": ("pines", "trees", "forest"),
    "snow": ("pines", "forest"),
    "desert": ("cactus",),
}
ALIASES = {
    "plains": "plain", "flat": "plain", "flat land": "plain", "field": "plain", "fields": "plain",
    "hill": "hills", "hilly": "hills", "mountain": "mountains", "peaks": "mountains", "alps": "mountains",
    "noon": "day", "daytime": "day", "midday": "day", "daylight": "day", "dusk": "sunset", "evening": "sunset",
    "sunrise": "dawn", "morning": "dawn", "midnight": "night", "nighttime": "night",
    "summer": "meadow", "spring": "meadow", "green": "meadow", "grass": "meadow", "meadows": "meadow",
    "fall": "autumn", "autumnal": "autumn", "winter": "snow", "snowy": "snow", "snow-covered": "snow",
    "dunes": "desert", "sand": "desert", "clear": "clear sky", "cloudless": "clear sky", "blue sky": "clear sky",
    "cloudy": "clouds", "cloud": "clouds", "foggy": "fog", "mist": "fog", "misty": "fog", "rainy": "rain",
    "raining": "rain", "snowing": "snowfall", "snowflakes": "snowfall", "falling snow": "snowfall",
    "pond": "lake", "stream": "river", "ocean": "sea", "coast": "sea", "seaside": "sea", "moon": "full moon",
    "half moon": "crescent moon", "crescent": "crescent moon", "new moon": "crescent moon", "pine": "pines",
    "pine trees": "pines", "firs": "pines", "tree": "trees", "woods": "forest", "cacti": "cactus", "house": "cabin",
    "hut": "cabin", "cottage": "cabin", "sailboat": "boat", "sailing boat": "boat", "sail": "boat",
}  # fmt: skip
STOP_WORDS = (
    "at", "behind", "beside", "between", "big", "by", "during", "falling", "from", "front", "is", "its", "landscape",
    "near", "next", "on", "over", "picture", "scene", "sky", "small", "some", "there", "through", "to", "under", "view",
)  # fmt: skip
EXAMPLES = (
    "snow mountains by a lake at sunset",
    "cabin and pines on a meadow by day, mountains, clear sky",
    "crescent moon over desert hills at night, clear sky",
    "boat on the sea at dawn, plain meadow, clouds",
    "autumn hills with trees and a river, day, clouds",
    "rain on meadow hills by day with a forest",
    "night, snow, mountains, full moon, clear sky, cabin",
    "fog over autumn hills at dawn, forest, lake",
)


@dataclass(frozen=True)
class Scene:
    """What a picture shows; a field is a word of its kind in `KINDS`, or None."""

    relief: str
    time: str
    land: str
    weather: str
    water: str | None = None
    moon: str | None = None
    plants: str | None = None
    cabin: str | None = None
    boat: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The complete caption, in the order of `KINDS`."""
        return tuple(word for kind in KINDS if (word := getattr(self, kind)) is not None)


def sample_scene(rng: np.random.Generator) -> Scene:
    """A random scene in which everything goes together: no boat without water, no snowfall on a meadow."""

    def one_of(words: Sequence[str]) -> str:
        return words[rng.integers(len(words))]

    def maybe(chance: float, words: Sequence[str]) -> str | None:
        return one_of(words) if rng.random() < chance else None

    relief, time, land = (one_of(KINDS[kind]) for kind in ("relief", "time", "land"))
    weather = one_of(WEATHER_OF[land])
    water = maybe(0.55, KINDS["water"])
    moon = one_of(KINDS["moon"]) if time == "night" and weather in ("clear sky", "clouds") else None
    plants = maybe(0.55, PLANTS_OF[land])
    cabin = maybe(0.3, KINDS["cabin"])
    boat = maybe(0.4, KINDS["boat"]) if water in ("lake", "sea") else None
    return Scene(relief, time, land, weather, water, moon, plants, cabin, boat)


def scene_vocabulary() -> CaptionVocabulary:
    """The words of all scenes, with synonyms."""
    return CaptionVocabulary(
        length=len(KINDS),
        phrases=PHRASES,
        aliases=dict(sorted(ALIASES.items())),
        kinds=KINDS,
        examples=EXAMPLES,
        stop_words=STOP_WORDS,
    )
