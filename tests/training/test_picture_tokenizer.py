"""Shapes of the tokenizer of pictures, and its decoder as a graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ciar.training.onnx_export import check_decoder, export_decoder
from ciar.training.picture_tokenizer import PictureTokenizer
from ciar.training.tokenizer import TokenizerConfig


@pytest.fixture
def tokenizer() -> PictureTokenizer:
    torch.manual_seed(0)
    return PictureTokenizer(
        TokenizerConfig(vocab_size=64, grid=8, encoder_width=8, decoder_width=8, num_blocks=1)
    ).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_every_cell_carries_a_code(tokenizer: PictureTokenizer, images: torch.Tensor) -> None:
    indices = tokenizer.indices(images)
    assert indices.shape == (3, 64)
    assert indices.min() >= 0
    assert indices.max() < 64
    assert tokenizer.decode(indices).shape == images.shape


@torch.inference_mode()
def test_the_device_decodes_what_training_decodes(tokenizer: PictureTokenizer, images: torch.Tensor) -> None:
    indices = tokenizer.indices(images)
    picture = tokenizer.picture_decoder()(indices[0])
    assert picture.shape == (32, 32, 3)
    expected = (tokenizer.decode(indices)[0].clamp(0, 1).permute(1, 2, 0) * 255 + 0.5).to(torch.uint8)
    assert (picture.int() - expected.int()).abs().max() <= 1


def test_the_exported_decoder_equals_the_module(tokenizer: PictureTokenizer, tmp_path: Path) -> None:
    export_decoder(tokenizer, tmp_path / "decoder.onnx")
    tokens = torch.randint(0, 64, (64,), generator=torch.Generator().manual_seed(0))
    assert check_decoder(tmp_path / "decoder.onnx", tokenizer, tokens) <= 1


@torch.inference_mode()
def test_a_token_may_cover_eight_pixels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = TokenizerConfig(vocab_size=64, grid=4, stride=8, encoder_width=8, decoder_width=8, num_blocks=1)
    assert config.image_size == 32
    tokenizer = PictureTokenizer(config).eval()
    indices = tokenizer.indices(torch.rand(2, 3, 32, 32))
    assert indices.shape == (2, 16)
    assert tokenizer.picture_decoder()(indices[0]).shape == (32, 32, 3)
    export_decoder(tokenizer, tmp_path / "decoder.onnx")
    assert check_decoder(tmp_path / "decoder.onnx", tokenizer, indices[0]) <= 1


def test_tokens_with_like_codes_start_alike(tokenizer: PictureTokenizer) -> None:
    tokenizer.quantizer.codes[1] = tokenizer.quantizer.codes[0]
    rows = tokenizer.token_rows(32, torch.Generator().manual_seed(0))
    assert rows.shape == (64, 32)
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
