"""Captions of the training pictures: the phrase table, and how a caption is drawn for a picture.

Flows in: concept names and the palette, or captions that people wrote. Flows out: a `CaptionVocabulary` and caption
ids. Knows nothing of pixels.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ciar.shared.conditioning import STOP_WORDS, CaptionVocabulary, words_of
from ciar.training.curation import STYLES
from ciar.training.palette import FOREGROUNDS, GROUNDS

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


ICON_LENGTH = 6
"""Caption positions of icons: one for every kind of phrase, and two to spare."""
LONGEST = 32
"""Most caption positions that are taken from the data."""


class CaptionConfig(BaseModel):
    """How long a caption is, and how often words are left out in training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: int | None = Field(default=None, ge=4)
    """Number C of caption positions; by default 6 for icons, and for pictures the words of the longest caption."""
    min_count: int = Field(default=1, ge=1)
    """Pictures: a word that fewer captions have is not learnt."""
    drop_word: float = Field(default=0.06, ge=0, lt=1)
    """Chance that a word is left out; of icons style, colour and ground only, each on its own."""
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


def caption_words(caption: str) -> list[str]:
    """The different words of a caption that a prompt would be read by, in order."""
    return [word for word in dict.fromkeys(words_of(caption)) if word not in STOP_WORDS]


def word_vocabulary(captions: list[str], length: int | None, min_count: int) -> CaptionVocabulary:
    """A vocabulary of the words that at least `min_count` captions have, sorted.

    Raises ValueError if no word is left.
    """
    counts = Counter(word for caption in captions for word in caption_words(caption))
    words = sorted(word for word, count in counts.items() if count >= min_count)
    if not words:
        raise ValueError(f"captions.min_count: no word is in {min_count} captions; lower it")
    known = set(words)
    kept = [[word for word in caption_words(caption) if word in known] for caption in captions]
    if length is None:
        length = min(LONGEST, max(4, *(len(chosen) for chosen in kept)))
    examples = list(dict.fromkeys(" ".join(chosen) for chosen in kept if 0 < len(chosen) <= length))
    return CaptionVocabulary(length=length, phrases=tuple(words), kinds={"word": tuple(words)}, examples=examples[:8])


def leave_out(ids: NDArray[np.int64], dropped: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Captions (B, C) without the ids that are dropped, (B, C) too: ascending, then 0."""
    kept = np.where(dropped, 0, ids)
    order = np.argsort(np.where(kept == 0, np.iinfo(np.int64).max, kept), axis=1, kind="stable")
    return np.take_along_axis(kept, order, axis=1)


class Captioner:
    """Draws caption ids for (concept, style, foreground, ground)."""

    def __init__(self, num_concepts: int, config: CaptionConfig) -> None:
        self.config, self.length = config, config.length or ICON_LENGTH
        self.offsets = np.cumsum([1, num_concepts, len(STYLES), len(FOREGROUNDS)])  # first id of every kind
        self.num_phrases = num_concepts + len(STYLES) + len(FOREGROUNDS) + len(GROUNDS)

    def full(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Complete captions of labels (B, 4) = concept, style, foreground, ground: ids (B, C), ascending then 0."""
        ids = np.zeros((len(labels), self.length), np.int64)
        ids[:, :4] = labels + self.offsets  # kinds follow one another, so this is ascending
        return ids

    def draw(self, labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Training captions of labels (B, 4): words and whole captions left out at random. (B, C)."""
        ids = self.full(labels)
        drop = np.zeros(ids.shape, bool)
        drop[:, 1:4] = rng.random((len(labels), 3)) < self.config.drop_word  # the concept stays
        drop |= rng.random((len(labels), 1)) < self.config.drop_caption
        return leave_out(ids, drop)
