"""Prompts: any order, any case, and an error that helps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ciar.shared.conditioning import STOP_WORDS, CaptionVocabulary
from ciar.shared.errors import InvalidRequest

PHRASES = ("heart", "light", "light bulb", "t-shirt", "filled", "red", "on cream")
VOCABULARY = CaptionVocabulary(
    length=4,
    phrases=PHRASES,
    aliases={"lamp": "light bulb", "cream background": "on cream"},
    examples=("red filled heart on cream",),
)
# No phrase here begins with "bulb", so no two of them make a third when they stand side by side.
CHOICES = st.lists(st.sampled_from(PHRASES), min_size=1, max_size=4, unique=True)


def ids_of(*phrases: str) -> list[int]:
    ids = sorted(PHRASES.index(phrase) + 1 for phrase in phrases)
    return ids + [0] * (4 - len(ids))


def encode(prompt: str) -> list[int]:
    return VOCABULARY.encode(prompt).tolist()


def test_ids_are_ascending_and_padded() -> None:
    encoded = VOCABULARY.encode("red heart on cream")
    assert encoded.dtype == np.int64
    assert encoded.tolist() == [1, 6, 7, 0]


@given(CHOICES, st.randoms(use_true_random=False), st.lists(st.sampled_from(sorted(STOP_WORDS)), max_size=3))
def test_order_case_and_stop_words_do_not_matter(phrases: list[str], random: object, stops: list[str]) -> None:
    words = [*phrases, *stops]
    random.shuffle(words)  # type: ignore[attr-defined]
    prompt = " ".join(random.choice([w.upper(), w.title(), w]) for w in words)  # type: ignore[attr-defined]
    assert encode(prompt) == ids_of(*phrases)


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("light bulb", ["light bulb"]),
        ("light", ["light"]),
        ("light red", ["light", "red"]),
        ("red LIGHT   bulb!", ["red", "light bulb"]),
        ("lamp", ["light bulb"]),
        ("a heart with cream background", ["heart", "on cream"]),
        ("t-shirt, red", ["t-shirt", "red"]),
        ("light bulb, lamp", ["light bulb"]),
        ("heart heart heart", ["heart"]),
    ],
)
def test_longest_phrase_first_aliases_and_repeats(prompt: str, phrases: list[str]) -> None:
    assert encode(prompt) == ids_of(*phrases)


def test_a_vocabulary_has_small_words_of_its_own() -> None:
    own = VOCABULARY.model_copy(update={"stop_words": ("by", "on")})
    assert own.encode("heart by a lamp on cream").tolist() == ids_of("heart", "light bulb", "on cream")
    with pytest.raises(InvalidRequest, match="'by'"):
        VOCABULARY.encode("heart by a lamp")


def test_an_unknown_word_names_its_nearest() -> None:
    with pytest.raises(InvalidRequest, match=r"unknown word 'haert'.*nearest known:.*heart"):
        encode("red haert")


def test_an_unknown_word_like_nothing_points_to_the_list() -> None:
    with pytest.raises(InvalidRequest, match=r"unknown word 'zzzzzz'; `ciar info`"):
        encode("zzzzzz")


@pytest.mark.parametrize("prompt", ["", "   ", "!?", "the icon of a", "\x00", "🙂"])
def test_a_prompt_without_a_known_word_shows_an_example(prompt: str) -> None:
    with pytest.raises(InvalidRequest, match=r"no known word.*'red filled heart on cream'"):
        encode(prompt)


def test_too_many_phrases() -> None:
    with pytest.raises(InvalidRequest, match=r"5 known phrases are more than the 4"):
        encode("heart light bulb t-shirt filled red")


@given(st.text(max_size=60))
def test_any_text_is_encoded_or_refused(prompt: str) -> None:
    try:
        encoded = VOCABULARY.encode(prompt)
    except InvalidRequest:
        return
    assert encoded.shape == (4,)
    assert encoded.max() > 0


def test_load_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text(
        json.dumps({"length": 2, "phrases": ["naïve", "sun"], "kinds": {"concept": ["sun"]}}), encoding="utf-8"
    )
    vocabulary = CaptionVocabulary.load(path)
    assert vocabulary.encode("NAÏVE sun").tolist() == [1, 2]
    with pytest.raises(InvalidRequest, match="'naïve'"):  # without examples, the first phrase is one
        vocabulary.encode("the")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"phrases": []}, "phrases"),
        ({"phrases": ["sun", "sun"]}, "phrases"),
        ({"aliases": {"moon": "luna"}}, "luna"),
        ({"length": 0}, "length"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_file_names_its_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        CaptionVocabulary.model_validate({"length": 2, "phrases": ["sun"]} | change)
