"""Captions of training pictures."""

from __future__ import annotations

import numpy as np
import pytest

from ciar.training.captions import CaptionConfig, Captioner, build_vocabulary
from ciar.training.palette import FOREGROUNDS, GROUNDS

LABELS = np.array([[0, 0, 0, 0], [1, 1, 3, 2], [2, 0, 7, 5]])


@pytest.fixture
def captioner() -> Captioner:
    return Captioner(3, CaptionConfig())


def test_full_caption_is_what_a_prompt_encodes_to(captioner: Captioner) -> None:
    concepts = ["bell", "heart", "open book"]
    vocabulary = build_vocabulary(concepts, {"home": "house"}, 6)
    colours, grounds = list(FOREGROUNDS), list(GROUNDS)
    for (concept, style, colour, ground), ids in zip(LABELS, captioner.full(LABELS), strict=True):
        words = [f"on {grounds[ground]}", colours[colour], concepts[concept], ("filled", "outline")[style]]
        assert vocabulary.encode(" ".join(words)).tolist() == ids.tolist()


def test_drawn_captions_are_sorted_subsets_that_keep_the_concept(captioner: Captioner) -> None:
    rng, labels = np.random.default_rng(0), np.repeat(LABELS, 400, axis=0)
    full, drawn = captioner.full(labels), captioner.draw(labels, rng)
    for whole, ids in zip(full, drawn, strict=True):
        kept = ids[ids > 0]
        assert set(kept) <= set(whole)
        assert (np.diff(kept) > 0).all()
        assert (ids[len(kept) :] == 0).all()
        assert len(kept) == 0 or whole[0] in kept
    empty = (drawn == 0).all(1).mean()
    assert 0.06 < empty < 0.15  # 1 200 draws of a 10 % chance


def test_colour_word_and_ground_word_are_different_phrases() -> None:
    vocabulary = build_vocabulary(["heart"], {}, 6)
    assert "on white" in vocabulary.phrases
    assert "white" not in vocabulary.phrases
    assert vocabulary.encode("heart cream background").tolist() == vocabulary.encode("heart on cream").tolist()


def test_unknown_examples_and_aliases_are_left_out() -> None:
    vocabulary = build_vocabulary(["heart"], {"home": "house"}, 6)
    assert vocabulary.examples == ("red filled heart on cream",)
    assert "home" not in vocabulary.aliases
