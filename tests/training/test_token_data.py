"""What the cloud model is trained on: painted icons and plain pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ciar.training.captions import CaptionConfig, Captioner, build_vocabulary
from ciar.training.dataset import held_out_combination
from ciar.training.palette import FOREGROUNDS, GROUNDS, NUM_PAIRS, split_pair
from ciar.training.token_data import PictureTokens, TokenData, held_out_table

CONCEPTS = ["bell", "heart", "star"]


@pytest.fixture
def icons() -> TokenData:
    shapes = torch.randint(-1, 16, (12, 256), generator=torch.Generator().manual_seed(0))
    barred = held_out_table(build_vocabulary(CONCEPTS, {}, 6))
    return TokenData(shapes, np.arange(12) % 3, np.arange(12) // 6, Captioner(3, CaptionConfig()), barred)


@pytest.fixture
def pictures() -> PictureTokens:
    tokens = torch.arange(8 * 16).view(8, 16)
    captions = np.array([[1, 3, 5, 0], [2, 0, 0, 0], [3, 4, 0, 0], [1, 2, 3, 4]] * 2)
    return PictureTokens(tokens, captions, drop_word=0.3, drop_caption=0.1)


def test_paint_colours_the_ground_as_the_labels_say(icons: TokenData) -> None:
    tokens, labels = icons.paint(np.arange(12), np.random.default_rng(0))
    ground = tokens[icons.shapes < 0]
    expected = torch.from_numpy(labels[:, 2] * 6 + labels[:, 3])[:, None].expand_as(tokens)[icons.shapes < 0]
    assert torch.equal(ground, expected)
    assert torch.equal(tokens[icons.shapes >= 0] - NUM_PAIRS, icons.shapes[icons.shapes >= 0])


def test_the_table_says_what_the_words_say() -> None:
    vocabulary = build_vocabulary(CONCEPTS, {}, 6)
    table = held_out_table(vocabulary)
    colours, grounds = list(FOREGROUNDS), list(GROUNDS)
    for concept, style, pair in [(0, 0, 0), (2, 1, 47), *np.argwhere(table)[:5]]:
        foreground, ground = split_pair(int(pair))
        words = (CONCEPTS[concept], ("filled", "outline")[style], colours[foreground], f"on {grounds[ground]}")
        assert table[concept, style, pair] == held_out_combination(words)
    assert 0.01 < table.mean() < 0.12


def test_a_held_out_combination_is_never_painted_and_all_others_are(icons: TokenData) -> None:
    """72 000 draws over at most 288 combinations: one is missed by chance with less than 1e-90."""
    rng, seen = np.random.default_rng(0), np.zeros_like(icons.held_out)
    for _ in range(6000):
        _, labels = icons.paint(np.arange(12), rng)
        seen[labels[:, 0], labels[:, 1], labels[:, 2] * len(GROUNDS) + labels[:, 3]] = True
    assert icons.held_out.any()
    assert np.array_equal(seen, ~icons.held_out)


def test_typical_drawings_are_preferred(icons: TokenData) -> None:
    weights = TokenData(icons.shapes, icons.concept, icons.style, icons.captioner, icons.held_out, 1.0).row_weights
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == pytest.approx(np.e * weights[3])  # the first and second drawing of one group
    assert icons.row_weights == pytest.approx(1 / 12)


def test_the_other_captions_are_of_other_drawings_in_the_same_colours(icons: TokenData) -> None:
    examples = icons.examples(12, np.random.default_rng(0))
    assert torch.equal(examples.captions[:, 2:4], examples.other_captions[:, 2:4])
    assert not torch.equal(examples.captions[:, :2], examples.other_captions[:, :2])


def test_pictures_come_as_they_are_with_words_left_out(pictures: PictureTokens) -> None:
    tokens, captions = pictures.batch(400, np.random.default_rng(0))
    rows = tokens[:, 0] // 16
    assert torch.equal(tokens, pictures.tokens[rows])
    assert set(rows.tolist()) == set(range(8))
    for ids, whole in zip(captions.numpy(), pictures.captions[rows.numpy()], strict=True):
        kept = ids[ids > 0]
        assert set(kept) <= set(whole)
        assert (np.diff(kept) > 0).all()
        assert (ids[len(kept) :] == 0).all()
    share = (captions > 0).sum().item() / (pictures.captions[rows.numpy()] > 0).sum()
    assert 0.55 < share < 0.71  # 0.63, of about 1 000 words


def test_examples_are_complete_and_different(pictures: PictureTokens) -> None:
    examples = pictures.subset(np.arange(4)).examples(10, np.random.default_rng(0))
    assert len(examples.tokens) == 4
    assert sorted(examples.tokens[:, 0].tolist()) == [0, 16, 32, 48]
    assert (examples.captions > 0).sum() == 10
    assert not torch.equal(examples.captions, examples.other_captions)
