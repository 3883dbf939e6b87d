"""Which pictures an evaluation draws: captions that training never saw, each with a seed of its own.

In: a vocabulary and how many. Out: `Picture`s in groups; a group is a repetition of the whole experiment with other
captions and other noise, so figures may be averaged over groups and their spread is an honest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import InvalidRequest
from ciar.training.dataset import held_out_combination

KINDS = ("concept", "style", "colour", "ground")
"""A caption has one phrase of each; the order is that of the label columns in training."""

_SHUFFLE = 20_260_323
_SEEDS_PER_GROUP = 100_000


class Picture(NamedTuple):
    """One picture to be drawn."""

    prompt: str
    seed: int
    group: int
    """The repetition that it belongs to."""
    labels: tuple[int, int, int, int] | None
    """Index of its concept, style, colour and ground among the vocabulary's; None where it has no such kinds."""


def has_kinds(vocabulary: CaptionVocabulary) -> bool:
    """Whether captions can be combined of all four kinds, so that held-out combinations exist."""
    return all(vocabulary.kinds.get(kind) for kind in KINDS)


def choose_pictures(vocabulary: CaptionVocabulary, per_group: int, groups: Sequence[int]) -> tuple[Picture, ...]:
    """`per_group` pictures of each group, group by group, whatever other groups there are always the same.

    Captions are combinations of all four kinds that `held_out_combination` keeps from training, in a fixed shuffled
    order, different ones in every group as long as there are enough. A vocabulary without these kinds gives its
    examples, over and over, with other seeds. Raises InvalidRequest if it has no examples either.
    """
    captions = (
        _held_out_captions(vocabulary) if has_kinds(vocabulary) else [(text, None) for text in vocabulary.examples]
    )
    if not captions:
        raise InvalidRequest(
            "bundle: captions.json has no examples, and no combinations of its words are held out from training; "
            "add examples to it"
        )
    order = np.random.default_rng(_SHUFFLE).permutation(len(captions))
    return tuple(
        Picture(text, group * _SEEDS_PER_GROUP + index, group, labels)
        for group in groups
        for index in range(per_group)
        for text, labels in [captions[order[(group * per_group + index) % len(order)]]]
    )


def _held_out_captions(vocabulary: CaptionVocabulary) -> list[tuple[str, tuple[int, int, int, int] | None]]:
    concepts, styles, colours, grounds = (vocabulary.kinds[kind] for kind in KINDS)
    return [
        (f"{colour} {style} {concept} {ground}", (c, s, f, g))
        for c, concept in enumerate(concepts)
        for s, style in enumerate(styles)
        for f, colour in enumerate(colours)
        for g, ground in enumerate(grounds)
        if held_out_combination((concept, style, colour, ground))
    ]
