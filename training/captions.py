"""Captions of the training pictures: the phrase table, and how a caption is drawn for a picture.

Flows in: concept names and the palette. Flows out: a `CaptionVocabulary` and caption ids. Knows nothing of pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from shared.captions import CaptionVocabulary
from training.curation import STYLES
from training.palette import FOREGROUNDS, GROUNDS

EXAMPLES = (
    "red filled heart on cream",
    "blue outline house on mint",
    "yellow filled star on lavender",
    "black outline camera on white",
    "green filled tree on sky",
    "purple filled bell on cream",
    "orange filled flame on gray",
    "pink outline gift on white",
)


class CaptionConfig(BaseModel):
    """How often words are left out of a training caption."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: int = Field(default=6, ge=4)
    """Number C of caption positions."""
    drop_word: float = Field(default=0.06, ge=0, lt=1)
    """Chance that style, colour or ground (each on its own) is not mentioned."""
    drop_caption: float = Field(default=0.1, ge=0, lt=1)
    """Chance of an empty caption, which guidance needs."""


def build_vocabulary(
    concepts: list[str], aliases: dict[str, str], length: int, examples: tuple[str, ...] = EXAMPLES
) -> CaptionVocabulary:
    """Phrase table: concepts, styles, colours, grounds ("on cream"), in this order.

    Examples that mention an unknown concept are left out.
    """
    grounds = [f"on {ground}" for ground in GROUNDS]
    aliases = (
        aliases | {f"{ground} background": f"on {ground}" for ground in GROUNDS} | {"solid": "filled", "grey": "gray"}
    )
    aliases = {word: phrase for word, phrase in aliases.items() if phrase in concepts or phrase not in aliases}
    aliases |= {"on grey": "on gray", "grey background": "on gray", "line": "outline", "outlined": "outline"}
    phrases = [*concepts, *STYLES, *FOREGROUNDS, *grounds]
    aliases = {w: p for w, p in aliases.items() if p in phrases and w not in phrases}
    known = [e for e in examples if any(f" {concept} on " in e for concept in concepts)]
    return CaptionVocabulary(
        length=length,
        phrases=tuple(phrases),
        aliases=dict(sorted(aliases.items())),
        kinds={
            "concept": tuple(concepts),
            "style": tuple(STYLES),
            "colour": tuple(FOREGROUNDS),
            "ground": tuple(grounds),
        },
        examples=tuple(known) or (f"{next(iter(FOREGROUNDS))} {STYLES[0]} {concepts[0]} {grounds[0]}",),
    )


class Captioner:
    """Draws caption ids for (concept, style, foreground, ground)."""

    def __init__(self, num_concepts: int, config: CaptionConfig) -> None:
        self.config = config
        self.offsets = np.cumsum([1, num_concepts, len(STYLES), len(FOREGROUNDS)])  # first id of every kind
        self.num_phrases = num_concepts + len(STYLES) + len(FOREGROUNDS) + len(GROUNDS)

    def full(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Complete captions of labels (B, 4) = concept, style, foreground, ground: ids (B, C), ascending then 0."""
        ids = np.zeros((len(labels), self.config.length), np.int64)
        ids[:, :4] = labels + self.offsets  # kinds follow one another, so this is ascending
        return ids

    def draw(self, labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Training captions of labels (B, 4): words and whole captions left out at random. (B, C)."""
        ids = self.full(labels)
        drop = rng.random((len(labels), 4)) < self.config.drop_word
        drop[:, 0] = False
        drop |= rng.random((len(labels), 1)) < self.config.drop_caption
        ids[:, :4][drop] = 0
        order = np.argsort(np.where(ids == 0, self.num_phrases + 1, ids), axis=1, kind="stable")
        return np.take_along_axis(ids, order, axis=1)
