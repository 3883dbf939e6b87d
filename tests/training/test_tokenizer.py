"""Shapes and invariants of the tokenizer."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ciar.training.drawn import draw
from ciar.training.palette import FOREGROUNDS, GROUNDS, NUM_PAIRS, pair_index, split_pair
from ciar.training.tokenizer import PictureDecoder, Quantizer, Tokenizer, colour_tokens


def _mask() -> torch.Tensor:
    return torch.from_numpy(draw("circle", "filled", 22)).float()[None] / 255


def test_shapes_and_ground(tokenizer: Tokenizer) -> None:
    shapes = tokenizer.indices(_mask())
    assert shapes.shape == (1, 256)
    assert shapes.max() < tokenizer.config.num_shapes
    grid = shapes.view(16, 16)
    assert (grid[:2] == -1).all()
    assert (grid[7:9, 7:9] >= 0).all()


def test_colours_touch_ground_alone(tokenizer: Tokenizer) -> None:
    shapes = tokenizer.indices(_mask()).repeat(2, 1)
    tokens = colour_tokens(shapes, torch.tensor([0, 47]))
    inked = shapes[0] >= 0
    assert torch.equal(tokens[0, inked], tokens[1, inked])
    assert (tokens[0, ~inked] == 0).all()
    assert (tokens[1, ~inked] == 47).all()


def test_picture_has_the_colours_of_its_ground_tokens(tokenizer: Tokenizer) -> None:
    pair = pair_index(2, 1)
    tokens = torch.full((256,), pair)
    picture = PictureDecoder(tokenizer)(tokens).numpy()
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    foreground, ground = list(FOREGROUNDS.values())[2], list(GROUNDS.values())[1]
    low, high = np.minimum(foreground, ground), np.maximum(foreground, ground)
    assert (picture >= low - 1).all()
    assert (picture <= high + 1).all()


def test_a_picture_without_ground_can_be_decoded(tokenizer: Tokenizer) -> None:
    tokens = torch.full((256,), NUM_PAIRS)
    assert PictureDecoder(tokenizer)(tokens).shape == (64, 64, 3)


def test_pairs_are_invertible() -> None:
    assert [pair_index(*split_pair(i)) for i in range(NUM_PAIRS)] == list(range(NUM_PAIRS))


def test_quantizer_moves_codes_to_their_vectors_and_revives_dead_ones() -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(8, 4, decay=0.5)
    z = F.normalize(torch.tensor([[1.0, 0.1, 0, 0], [0, 0, 1, 0.1]]), dim=-1).repeat(8, 1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        quantizer.update(z, quantizer.nearest(z), generator)
    assert torch.allclose(quantizer.codes.norm(dim=-1), torch.ones(8), atol=1e-5)
    assert torch.allclose(quantizer.codes[quantizer.nearest(z)], z, atol=1e-3)
    assert (quantizer.codes @ z.T).max(1).values.min() > 0.99  # nobody is left where nothing is
