"""Corruption, sampling and resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ciar.cloud_server.transformer import Transformer, TransformerConfig, fused_causal_attention
from ciar.training.captions import CaptionConfig, Captioner
from ciar.training.cloud_training import (
    CloudTrainer,
    CloudTrainingConfig,
    corrupt,
    load_cloud,
    plain_causal_attention,
)
from ciar.training.muon import Muon, orthogonalise
from ciar.training.palette import NUM_PAIRS
from ciar.training.sampling import guide, multinomial, roll_out
from ciar.training.token_data import TokenData

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
    barred = np.zeros((2, 2, NUM_PAIRS), bool)
    return TokenData(shapes, np.arange(12) % 2, np.arange(12) // 6, Captioner(2, CaptionConfig()), barred)


def _trainer(shape: TransformerConfig, data: TokenData, folder: Path, **changes: float) -> CloudTrainer:
    config = CloudTrainingConfig(**{"batch_size": 4, "warmup_steps": 2, "num_steps": 6} | changes)
    rows = torch.randn(VOCAB, shape.dim, generator=torch.Generator().manual_seed(0))
    return CloudTrainer(shape, rows, data, {"held_out_drawings": data}, config, folder, torch.device("cpu"))


def test_corruption_never_always_and_sometimes() -> None:
    tokens, rng = torch.arange(4000).view(4, 1000), np.random.default_rng(0)
    never = CloudTrainingConfig(corrupt_share=0.0)
    always = CloudTrainingConfig(corrupt_share=1.0, corrupt_rate=1.0)
    assert torch.equal(corrupt(tokens, never, rng), tokens)
    share = (corrupt(tokens, always, rng) != tokens).float().mean(1)
    assert share.min() > 0.001
    assert share.max() < 1.0
    assert share.std() > 0


def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(
    shape: TransformerConfig, data: TokenData, tmp_path: Path
) -> None:
    straight = _trainer(shape, data, tmp_path / "straight")
    straight.run()
    _trainer(shape, data, tmp_path / "stopped").run(until=0.5)
    second = _trainer(shape, data, tmp_path / "stopped")
    assert second.state.resume()
    assert second.state.step == 3
    second.run()
    for (name, p), q in zip(straight.model.named_parameters(), second.model.parameters(), strict=True):
        assert torch.equal(p, q), name
    loaded = load_cloud(second.state.checkpoint)
    assert torch.equal(loaded.output.weight, second.model.output.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 80}, "shape.vocab_size was 64 and is 80"),
        ({"grid_height": 12, "grid_width": 12}, "shape.grid_height was 16 and is 12"),
        ({"num_phrases": 20}, "shape.num_phrases was 18 and is 20"),
    ],
)
def test_a_checkpoint_of_another_grid_or_vocabulary_is_refused_with_both_numbers(
    changes: dict, message: str, shape: TransformerConfig, data: TokenData, tmp_path: Path
) -> None:
    _trainer(shape, data, tmp_path).state.save()
    other = shape.model_copy(update=changes)
    config = CloudTrainingConfig(batch_size=4, warmup_steps=2, num_steps=6)
    rows = torch.zeros(other.vocab_size, other.dim)
    trainer = CloudTrainer(other, rows, data, {}, config, tmp_path, torch.device("cpu"))
    with pytest.raises(ValueError, match=message):
        trainer.state.resume()


def test_another_configuration_is_refused_and_a_longer_budget_is_not(
    shape: TransformerConfig, data: TokenData, tmp_path: Path
) -> None:
    _trainer(shape, data, tmp_path).state.save()
    assert _trainer(shape, data, tmp_path, num_steps=99).state.resume()
    with pytest.raises(ValueError, match=r"training\.learning_rate was 0\.002 and is 0\.0001"):
        _trainer(shape, data, tmp_path, learning_rate=1e-4).state.resume()


def test_the_learning_rate_warms_up_and_falls_to_zero(
    shape: TransformerConfig, data: TokenData, tmp_path: Path
) -> None:
    trainer = _trainer(shape, data, tmp_path, num_steps=100, warmup_steps=10, decay_share=0.5)
    rates = []
    for step in (0, 9, 40, 75, 100):
        trainer.state.step = step
        rates.append(trainer._schedule())
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.0])


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


def test_attention_written_out_equals_the_fused_one() -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 16, generator=torch.Generator().manual_seed(0)).unbind(0)
    assert torch.allclose(plain_causal_attention(q, k, v), fused_causal_attention(q, k, v), atol=1e-5)


def test_bfloat16_training_keeps_weights_in_float32_and_stays_near(
    shape: TransformerConfig, data: TokenData, tmp_path: Path
) -> None:
    exact, rough = (_trainer(shape, data, tmp_path / p, precision=p) for p in ("float32", "bfloat16"))
    before = exact.evaluate("held_out_drawings")[0]
    assert rough.evaluate("held_out_drawings")[0] == pytest.approx(before, rel=1e-2)
    exact.run()
    rough.run()
    assert all(p.dtype == torch.float32 for p in rough.model.parameters())
    after = exact.evaluate("held_out_drawings")[0]
    assert after < before
    assert rough.evaluate("held_out_drawings")[0] == pytest.approx(after, rel=2e-2)
