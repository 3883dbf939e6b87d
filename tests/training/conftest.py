"""A tiny pair with random weights."""

from __future__ import annotations

import pytest
import torch

from ciar.training.drafter import Drafter, DrafterConfig, PairShape
from ciar.training.tokenizer import Tokenizer, TokenizerConfig

VOCAB, GRID, PHRASES, CAPTION, RANK = 64, 16, 10, 6, 4


@pytest.fixture
def pair() -> PairShape:
    return PairShape(vocab_size=VOCAB, grid=GRID, num_phrases=PHRASES, caption_length=CAPTION, feature_dim=RANK)


@pytest.fixture
def drafter(pair: PairShape) -> Drafter:
    torch.manual_seed(0)
    return Drafter(DrafterConfig(dim=32, num_heads=2, ffn_dim=48), pair).eval()


@pytest.fixture
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(TokenizerConfig(vocab_size=VOCAB, encoder_width=16, decoder_width=8, num_blocks=1)).eval()


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, VOCAB, (2, GRID * GRID), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def condition() -> torch.Tensor:
    return torch.tensor([[1, 4, 7, 0, 0, 0], [2, 0, 0, 0, 0, 0]])
