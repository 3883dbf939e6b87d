"""Prompts for any pair: the phrases of its vocabulary, combined in a fixed order."""

from __future__ import annotations

import math

from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import InvalidRequest

_STRIDE = 37
"""Steps through the first kind, so that neighbours in the alphabet do not follow each other."""


def prompts_of(vocabulary: CaptionVocabulary, count: int, start: int = 0) -> tuple[str, ...]:
    """`count` different prompts with one phrase of every kind, from number `start` on; number i is always the same.

    Raises InvalidRequest if the vocabulary has too few: each phrase of the first kind (the things) serves once.
    """
    things, *others = [phrases for phrases in vocabulary.kinds.values() if phrases] or [vocabulary.examples]
    if start + count > len(things):
        raise InvalidRequest(f"prompts: the vocabulary has {len(things)} to offer, {start + count} are asked for")
    step = _STRIDE if math.gcd(_STRIDE, len(things)) == 1 else 1
    return tuple(
        " ".join([things[number * step % len(things)], *(phrases[number % len(phrases)] for phrases in others)])
        for number in range(start, start + count)
    )
