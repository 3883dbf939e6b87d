"""Radius heads on frozen positions: the trunk and the centre stay, the distance is learnt."""

from __future__ import annotations

import torch

from ciar.training.drafter import Drafter, DrafterConfig, PairShape
from ciar.training.laws import LawCache
from ciar.training.metrics import tabulate
from ciar.training.radius_comparison import INITIAL_RADIUS, VARIANTS, RadiusConfig, freeze, train_radius
from ciar.training.ranking import aurc

PREFIX, TEMPERATURE = 3, 0.75


def _case() -> tuple[Drafter, LawCache]:
    """A random drafter, and a cloud whose law differs from it the more, the larger one hidden component is."""
    torch.manual_seed(0)
    pair = PairShape(vocab_size=12, grid=4, num_phrases=4, caption_length=2, feature_dim=2)
    drafter = Drafter(DrafterConfig(dim=16, num_heads=1, ffn_dim=16), pair).eval()
    tokens, condition = torch.randint(0, 12, (48, 16)), torch.randint(0, 5, (48, 2))
    with torch.inference_mode():
        draft = drafter(condition, tokens)
        amount = torch.sigmoid(3 * draft.hidden[..., :1])
        log_p = torch.log_softmax(draft.center + 4 * amount * torch.randn_like(draft.center), -1)
    return drafter, LawCache(condition, tokens, log_p.half())


def test_frozen_positions_are_those_after_the_prefix() -> None:
    drafter, cache = _case()
    positions = freeze(drafter, cache, PREFIX)
    assert positions.hidden.shape == (48 * 13, 16)
    assert torch.equal(positions.law, cache.law[:, PREFIX:].flatten(0, 1))


def test_a_head_learns_to_rank_the_distance_and_leaves_all_else() -> None:
    drafter, cache = _case()
    config = RadiusConfig(batch_size=256, num_steps=150, learning_rate=1e-2)
    positions = freeze(drafter, cache, PREFIX)
    for name in ("Ω as the distance [ours]", "U as the distance [ours]"):
        trained = train_radius(drafter, positions, VARIANTS[name], config, TEMPERATURE)
        tables = [tabulate(d, cache, PREFIX, TEMPERATURE) for d in (drafter, trained)]
        before, after = (aurc(table.scores[name[0]], table.total_variation) for table in tables)
        assert after < 0.9 * before, name
        for key, value in drafter.state_dict().items():
            same = torch.equal(trained.state_dict()[key], value)
            assert same is not key.startswith("radius_head"), key


def test_what_learns_nothing_is_a_constant() -> None:
    drafter, cache = _case()
    constant = train_radius(drafter, freeze(drafter, cache, PREFIX), None, RadiusConfig(), TEMPERATURE)
    with torch.inference_mode():
        radius = constant(cache.condition, cache.tokens).radius
    torch.testing.assert_close(radius, torch.full_like(radius, INITIAL_RADIUS))
