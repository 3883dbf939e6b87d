"""Which pictures an evaluation draws: captions that training never saw, each with a seed of its own.

In: a vocabulary and how many. Out: `Picture`s in groups; a group is a repetition of the whole experiment with other
captions and other noise, so figures may be averaged over groups and their spread is an honest one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shared.captions import CaptionVocabulary
from shared.errors import InvalidRequest
from training.dataset import held_out_combination

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
    labels: tuple[int, int, int, int]
    """Index of its concept, style, colour and ground among the vocabulary's."""


def held_out_pictures(vocabulary: CaptionVocabulary, per_group: int, groups: Sequence[int]) -> tuple[Picture, ...]:
    """`per_group` pictures of each group, group by group, whatever other groups there are always the same.

    Captions are combinations of all four kinds that `held_out_combination` keeps from training, in a fixed shuffled
    order, different ones in every group as long as there are enough. Raises InvalidRequest if the vocabulary lacks a
    kind or has no such combination.
    """
    if missing := [kind for kind in KINDS if not vocabulary.kinds.get(kind)]:
        raise InvalidRequest(
            f"bundle: captions.json lists no phrases of kind {', '.join(missing)}; "
            f"an evaluation needs {', '.join(KINDS)}"
        )
    phrases = [vocabulary.kinds[kind] for kind in KINDS]
    combinations = [
        labels
        for labels in itertools.product(*(range(len(kind)) for kind in phrases))
        if held_out_combination([kind[index] for kind, index in zip(phrases, labels, strict=True)])
    ]
    if not combinations:
        raise InvalidRequest("bundle: no combination of the words in captions.json is held out from training")
    order = np.random.default_rng(_SHUFFLE).permutation(len(combinations))
    return tuple(
        _picture(combinations[order[(group * per_group + index) % len(order)]], phrases, group, index)
        for group in groups
        for index in range(per_group)
    )


def _picture(labels: tuple[int, ...], phrases: Sequence[tuple[str, ...]], group: int, index: int) -> Picture:
    concept, style, colour, ground = labels
    words = (phrases[2][colour], phrases[1][style], phrases[0][concept], phrases[3][ground])
    return Picture(" ".join(words), group * _SEEDS_PER_GROUP + index, group, (concept, style, colour, ground))
