"""Painting, corruption, sampling and resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cloud_server.transformer import Transformer, TransformerConfig
from training.captions import CaptionConfig, Captioner
from training.cloud_training import CloudTrainer, CloudTrainingConfig, TokenData, corrupt
from training.muon import Muon, orthogonalise
from training.palette import NUM_PAIRS
from training.sampling import guide, multinomial, roll_out

VOCAB = 64


@pytest.fixture
def shape() -> TransformerConfig:
    return TransformerConfig(
        dim=32, num_layers=2, num_heads=2, ffn_dim=48, vocab_size=VOCAB, grid_height=16, grid_width=16, num_phrases=18,
        caption_length=6, prefix_rope="identity", condition_everywhere=True, feature_dim=4,
    )  # fmt: skip


@pytest.fixture
def data() -> TokenData:
    generator = torch.Generator().manual_seed(0)
    shapes = torch.randint(-1, VOCAB - NUM_PAIRS, (12, 256), generator=generator)
    return TokenData(shapes, np.arange(12) % 2, np.arange(12) // 6)


def _trainer(shape: TransformerConfig, data: TokenData, folder: Path, **changes: float) -> CloudTrainer:
    config = CloudTrainingConfig(batch_size=4, warmup_steps=2, **changes)
    codes = torch.randn(VOCAB - NUM_PAIRS, 8, generator=torch.Generator().manual_seed(0))
    return CloudTrainer(shape, codes, data, {"held_out_drawings": data}, Captioner(2, CaptionConfig()), config, folder)


def test_paint_colours_the_ground_as_the_labels_say(data: TokenData) -> None:
    tokens, labels = data.paint(np.arange(12), np.random.default_rng(0))
    ground = tokens[data.shapes < 0]
    expected = torch.from_numpy(labels[:, 2] * 6 + labels[:, 3])[:, None].expand_as(tokens)[data.shapes < 0]
    assert torch.equal(ground, expected)
    assert torch.equal(tokens[data.shapes >= 0] - NUM_PAIRS, data.shapes[data.shapes >= 0])


def test_corruption_never_always_and_sometimes() -> None:
    tokens, rng = torch.arange(4000).view(4, 1000), np.random.default_rng(0)
    never = CloudTrainingConfig(corrupt_share=0.0)
    always = CloudTrainingConfig(corrupt_share=1.0, corrupt_rate=1.0)
    assert torch.equal(corrupt(tokens, never, rng), tokens)
    share = (corrupt(tokens, always, rng) != tokens).float().mean(1)
    assert share.min() > 0.001
    assert share.max() < 1.0
    assert share.std() > 0


def test_resuming_is_exact_and_refuses_another_configuration(
    shape: TransformerConfig, data: TokenData, tmp_path: Path
) -> None:
    first = _trainer(shape, data, tmp_path)
    for _ in range(3):
        first.train_step()
    first.save()
    expected = [first.train_step() for _ in range(2)]
    second = _trainer(shape, data, tmp_path)
    second.resume()
    assert [second.train_step() for _ in range(2)] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match=r"training\.learning_rate"):
        _trainer(shape, data, tmp_path, learning_rate=1e-4).resume()


def test_a_run_may_be_resumed_with_a_longer_budget(shape: TransformerConfig, data: TokenData, tmp_path: Path) -> None:
    _trainer(shape, data, tmp_path).save()
    _trainer(shape, data, tmp_path, seconds=1.0).resume()


@torch.inference_mode()
def test_roll_out_reports_the_law_that_teacher_forcing_gives(shape: TransformerConfig) -> None:
    torch.manual_seed(0)
    model = Transformer(shape).eval()
    for p in model.parameters():
        p.mul_(10)
    condition = torch.tensor([[1, 3, 0, 0, 0, 0], [2, 4, 9, 0, 0, 0]])
    tokens, law = roll_out(model, condition, 1.5, multinomial(torch.Generator().manual_seed(0)), keep_law=True)
    assert law is not None
    both = torch.cat([condition, torch.zeros_like(condition)])
    logits = model(both, tokens[:, :-1].repeat(2, 1)).unflatten(0, (2, 2))
    torch.testing.assert_close(law.float(), guide(logits, 1.5).clamp(min=-30), atol=2e-2, rtol=1e-2)


def test_multinomial_follows_the_law() -> None:
    """8 000 draws: a share is off by more than 0.025 with a chance below 1e-5."""
    law = torch.tensor([0.5, 0.3, 0.2]).log().expand(8000, 3)
    draws = multinomial(torch.Generator().manual_seed(0))(0, law)
    shares = torch.bincount(draws, minlength=3) / 8000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.025, rtol=0)


def test_orthogonalise_brings_singular_values_near_one() -> None:
    matrices = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices, 5))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_descends() -> None:
    torch.manual_seed(0)
    weight, target = torch.nn.Parameter(torch.zeros(48, 16)), torch.randn(48, 16)
    optimizer = Muon([weight], lr=0.05)
    losses = []
    for _ in range(60):
        loss = (weight - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
