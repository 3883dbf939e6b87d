"""Captions that training never saw."""

from __future__ import annotations

import pytest

from benchmarks.evaluation.pictures import KINDS, held_out_pictures
from shared.captions import CaptionVocabulary
from shared.errors import InvalidRequest
from training.dataset import held_out_combination

VOCABULARY = CaptionVocabulary(
    length=4,
    phrases=tuple(f"{kind}{n}" for kind in KINDS for n in range(5)),
    kinds={kind: tuple(f"{kind}{n}" for n in range(5)) for kind in KINDS},
)


def test_captions_are_held_out_differ_and_can_be_read() -> None:
    pictures = held_out_pictures(VOCABULARY, 4, [0, 1, 2])
    assert len({picture.prompt for picture in pictures}) == len({picture.seed for picture in pictures}) == 12
    assert [picture.group for picture in pictures] == [0] * 4 + [1] * 4 + [2] * 4
    for picture in pictures:
        words = [VOCABULARY.kinds[kind][label] for kind, label in zip(KINDS, picture.labels, strict=True)]
        assert held_out_combination(words)
        assert sorted(picture.prompt.split()) == sorted(words)
        assert (VOCABULARY.encode(picture.prompt) > 0).all()


def test_a_group_is_the_same_whenever_it_is_asked_for() -> None:
    assert held_out_pictures(VOCABULARY, 3, [1]) == held_out_pictures(VOCABULARY, 3, [0, 1, 2])[3:6]


def test_a_small_vocabulary_repeats_captions_with_other_seeds() -> None:
    few = held_out_pictures(VOCABULARY, 200, [0])
    assert len({picture.seed for picture in few}) == 200
    assert len({picture.prompt for picture in few}) < 200


def test_a_vocabulary_without_a_kind_is_named() -> None:
    without = VOCABULARY.model_copy(update={"kinds": {kind: VOCABULARY.kinds[kind] for kind in KINDS[:3]}})
    with pytest.raises(InvalidRequest, match="no phrases of kind ground"):
        held_out_pictures(without, 1, [0])
