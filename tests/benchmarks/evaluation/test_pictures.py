"""Captions that training never saw."""

from __future__ import annotations

import pytest

from ciar.benchmarks.evaluation.pictures import KINDS, choose_pictures, has_kinds
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import InvalidRequest
from ciar.training.dataset import held_out_combination

VOCABULARY = CaptionVocabulary(
    length=4,
    phrases=tuple(f"{kind}{n}" for kind in KINDS for n in range(5)),
    kinds={kind: tuple(f"{kind}{n}" for n in range(5)) for kind in KINDS},
)


def test_captions_are_held_out_differ_and_can_be_read() -> None:
    pictures = choose_pictures(VOCABULARY, 4, [0, 1, 2])
    assert len({picture.prompt for picture in pictures}) == len({picture.seed for picture in pictures}) == 12
    assert [picture.group for picture in pictures] == [0] * 4 + [1] * 4 + [2] * 4
    for picture in pictures:
        assert picture.labels is not None
        words = [VOCABULARY.kinds[kind][label] for kind, label in zip(KINDS, picture.labels, strict=True)]
        assert held_out_combination(words)
        assert sorted(picture.prompt.split()) == sorted(words)
        assert (VOCABULARY.encode(picture.prompt) > 0).all()


def test_a_group_is_the_same_whenever_it_is_asked_for() -> None:
    assert choose_pictures(VOCABULARY, 3, [1]) == choose_pictures(VOCABULARY, 3, [0, 1, 2])[3:6]


def test_a_small_vocabulary_repeats_captions_with_other_seeds() -> None:
    few = choose_pictures(VOCABULARY, 200, [0])
    assert len({picture.seed for picture in few}) == 200
    assert len({picture.prompt for picture in few}) < 200


def test_a_vocabulary_without_kinds_gives_its_examples() -> None:
    words = CaptionVocabulary(length=2, phrases=("cat", "dog"), kinds={"word": ("cat", "dog")}, examples=("cat", "dog"))
    pictures = choose_pictures(words, 3, [0, 1])
    assert {picture.prompt for picture in pictures} == {"cat", "dog"}
    assert len({picture.seed for picture in pictures}) == 6
    assert all(picture.labels is None for picture in pictures)
    assert not has_kinds(words)
    assert has_kinds(VOCABULARY)


def test_a_vocabulary_without_anything_to_draw_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="no examples"):
        choose_pictures(CaptionVocabulary(length=2, phrases=("cat",)), 1, [0])
