"""Prompts of the embedded pair: a bag of known phrases, in any order and case.

In: a prompt. Out: phrase ids. An unknown word is an error that names its nearest known ones.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ciar.shared.errors import InvalidRequest

STOP_WORDS = frozenset({"a", "an", "the", "icon", "of", "and", "with", "in"})


def words_of(text: str) -> list[str]:
    """The words of a prompt or caption, in lower case."""
    return re.findall(r"[\w'-]+", text.lower())


class CaptionVocabulary(BaseModel):
    """The phrases a pair knows. Phrase id = index + 1; id 0 is padding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: int = Field(gt=0)
    """Number C of ids in an encoded prompt."""
    phrases: tuple[str, ...] = Field(min_length=1)
    aliases: dict[str, str] = Field(default_factory=dict)
    """Other words for a phrase."""
    kinds: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Phrases by kind (concept, style, colour, ground), for people."""
    examples: tuple[str, ...] = ()
    """Prompts to show."""
    stop_words: tuple[str, ...] = ()
    """Words of a prompt that say nothing here, besides `STOP_WORDS`."""

    @model_validator(mode="after")
    def _check(self) -> CaptionVocabulary:
        known = set(self.phrases)
        if len(known) != len(self.phrases):
            raise ValueError("phrases: must not repeat")
        if unknown := sorted(set(self.aliases.values()) - known):
            raise ValueError(f"aliases: {unknown} are not phrases")
        return self

    @classmethod
    def load(cls, path: Path) -> CaptionVocabulary:
        """Read captions.json."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    def encode(self, prompt: str) -> NDArray[np.int64]:
        """Ids of the prompt's phrases, ascending, padded with 0: int64 (C,).

        Longest phrase first, each counted once. Raises InvalidRequest for an unknown word, for a prompt without any
        known phrase, and for more than C phrases.
        """
        ids = self._ids()
        words = words_of(prompt)
        longest = max(len(phrase.split()) for phrase in ids)
        found: set[int] = set()
        position = 0
        while position < len(words):
            for size in range(min(longest, len(words) - position), 0, -1):
                phrase = " ".join(words[position : position + size])
                if phrase in ids:
                    found.add(ids[phrase])
                    position += size
                    break
            else:
                self._require_stop_word(words[position], ids)
                position += 1
        if not found:
            raise InvalidRequest(
                f"prompt: no known word in {prompt!r}; try for example {self._example()!r} (`ciar info` lists all)"
            )
        if len(found) > self.length:
            raise InvalidRequest(f"prompt: {len(found)} known phrases are more than the {self.length} of this model")
        return np.array(sorted(found) + [0] * (self.length - len(found)), np.int64)

    def _ids(self) -> dict[str, int]:
        ids = {phrase: index + 1 for index, phrase in enumerate(self.phrases)}
        return ids | {alias: ids[phrase] for alias, phrase in self.aliases.items()}

    def _require_stop_word(self, word: str, ids: dict[str, int]) -> None:
        if word in STOP_WORDS or word in self.stop_words:
            return
        nearest = difflib.get_close_matches(word, ids, n=3, cutoff=0.5)
        hint = f"nearest known: {', '.join(nearest)}" if nearest else "`ciar info` lists the known ones"
        raise InvalidRequest(f"prompt: unknown word {word!r}; {hint}")

    def _example(self) -> str:
        return self.examples[0] if self.examples else self.phrases[0]
