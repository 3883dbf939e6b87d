"""What φ is trained on, and that training touches nothing but the two matrices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ciar.cloud_server.transformer import Transformer, TransformerConfig
from ciar.training.drafter import Drafter, DrafterConfig, PairShape
from ciar.training.feature_training import FeatureTrainer, FeatureTrainingConfig, Variant
from ciar.training.laws import LawCache

SHAPE = TransformerConfig(
    dim=16, num_layers=1, num_heads=2, ffn_dim=16, vocab_size=24, grid_height=4, grid_width=4, num_phrases=8,
    caption_length=3, prefix_rope="identity", condition_everywhere=True, feature_dim=4,
)  # fmt: skip
PREFIX = 3


@pytest.fixture
def cache() -> LawCache:
    generator = torch.Generator().manual_seed(0)
    return LawCache(
        torch.randint(0, 9, (8, 3), generator=generator),
        torch.randint(0, 24, (8, 16), generator=generator),
        torch.zeros(8, 16, 24).half(),
    )


def _trainer(folder: Path, reads: str = "own", rank: int = 4, num_steps: int = 6) -> FeatureTrainer:
    torch.manual_seed(0)
    pair = PairShape(vocab_size=24, grid=4, num_phrases=8, caption_length=3, feature_dim=4)
    drafter = Drafter(DrafterConfig(dim=16, num_heads=1, ffn_dim=16), pair).eval()
    config = FeatureTrainingConfig(num_steps=num_steps, batch_size=4, learning_rate=0.1)
    return FeatureTrainer(Transformer(SHAPE).eval(), drafter, Variant(reads, rank), config, PREFIX, 1.0, folder)


@pytest.mark.parametrize("reads", ["own", "drafted"])
def test_only_locally_accepted_tokens_are_replaced_and_carry_a_feature(
    reads: str, cache: LawCache, tmp_path: Path
) -> None:
    trainer = _trainer(tmp_path, reads)
    condition, tokens, _ = cache.batch(slice(8))
    marked = trainer.mark(condition, tokens, torch.Generator().manual_seed(0))
    assert not marked.local[:, :PREFIX].any()
    assert 0.5 < marked.local.float().mean() < 0.8
    changed = marked.read != tokens
    assert not (changed & ~marked.local).any()
    assert changed.any().item() is (reads == "drafted")
    assert torch.equal(marked.target, tokens)
    features = trainer.features(marked)
    assert (features[marked.local] != 0).any(-1).all()
    assert (features[~marked.local] == 0).all()


def test_training_helps_on_what_it_was_trained_on_and_moves_two_matrices(cache: LawCache, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, "drafted", rank=2, num_steps=40)
    before = trainer.evaluate(cache)
    assert before.gain == 0  # the projection starts at zero
    frozen = {n: p.clone() for n, p in trainer.model.named_parameters() if not n.startswith("feature_projection")}
    trainer.run(cache)
    assert trainer.evaluate(cache).gain > 0.01
    for name, value in frozen.items():
        assert torch.equal(trainer.model.get_parameter(name), value), name
    assert (trainer.head.weight[2:] == 0).all()
    assert (trainer.head.weight[:2] != 0).any()


def test_a_resumed_run_ends_with_the_same_matrices(cache: LawCache, tmp_path: Path) -> None:
    straight = _trainer(tmp_path / "straight")
    straight.run(cache)
    part = _trainer(tmp_path / "parts")
    part.state.run(lambda: part._step(cache), until=0.5)
    resumed = _trainer(tmp_path / "parts")
    assert resumed.state.step == 3
    resumed.run(cache)
    for a, b in zip(straight.trained, resumed.trained, strict=True):
        assert torch.equal(a, b)


def test_a_rank_without_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cloud\.feature_dim: 4 has no room for rank 5"):
        _trainer(tmp_path, rank=5)
