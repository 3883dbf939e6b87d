"""The loss terms, and runs that are taken up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ciar.training.drafter import DrafterConfig, PairShape
from ciar.training.drafter_training import DrafterTrainer, DrafterTrainingConfig, LossWeights, inter_dro
from ciar.training.laws import LawCache


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(2, 5, 8, generator=generator, requires_grad=True)
    radius = torch.rand(2, 5, 8, generator=generator, requires_grad=True)
    log_p = torch.log_softmax(torch.randn(2, 5, 8, generator=generator), -1)
    return center, radius, log_p


NOTHING = {"align": 0.0, "anchor_l1": 0.0}


def test_align_vanishes_for_the_right_centre(case: tuple) -> None:
    _, radius, log_p = case
    loss, terms = inter_dro(log_p.clone(), radius, log_p, LossWeights(**NOTHING | {"align": 1.0}))
    assert abs(loss.item()) < 1e-6
    assert terms["tv"] < 1e-6


@pytest.mark.parametrize("name", ["bounds", "dro", "laplace", "interval_score", "width", "score"])
def test_terms_of_the_bounds_leave_the_centre_alone(name: str, case: tuple) -> None:
    center, radius, log_p = case
    weights = LossWeights(**NOTHING | {"anchor_ce": 1.0, name: 1.0})
    loss, _ = inter_dro(center, radius, log_p, weights)
    with_term = torch.autograd.grad(loss, (center, radius), retain_graph=True)
    alone, _ = inter_dro(center, radius, log_p, LossWeights(**NOTHING | {"anchor_ce": 1.0}))
    torch.testing.assert_close(with_term[0], torch.autograd.grad(alone, center)[0])
    assert with_term[1].abs().sum() > 0


def test_laplace_term_is_least_where_the_radius_is_the_error() -> None:
    log_p = torch.tensor([[[0.7, 0.2, 0.1]]]).log()
    center = torch.tensor([[[0.5, 0.3, 0.2]]]).log()
    odds = [torch.logit(x.exp()) for x in (log_p, center)]
    error = (odds[0] - odds[1]).abs()
    weights = LossWeights(**NOTHING | {"laplace": 1.0})
    losses = [inter_dro(center, factor * error, log_p, weights)[0].item() for factor in (0.5, 1.0, 2.0)]
    assert losses[1] == min(losses)


def test_dro_weighs_hard_positions_more(case: tuple) -> None:
    center, radius, log_p = case
    even, hard = (
        inter_dro(center, radius, log_p, LossWeights(**NOTHING | {"dro": 1.0, "dro_alpha": alpha}))[0]
        for alpha in (0.0, 2.0)
    )
    assert hard > even


@pytest.mark.parametrize("name", ["width", "score"])
def test_a_distance_term_teaches_the_radius_the_distance(name: str, case: tuple) -> None:
    center, _, log_p = case
    raw = torch.zeros(2, 5, 8, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.1)
    weights = LossWeights(**NOTHING | {name: 1.0})
    losses = []
    for _ in range(150):
        loss, _ = inter_dro(center, torch.nn.functional.softplus(raw), log_p, weights, temperature=0.75)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_the_interval_score_is_least_for_the_narrowest_interval_that_covers() -> None:
    log_p = torch.tensor([[[0.7, 0.2, 0.1]]]).log()
    center = torch.tensor([[[0.6, 0.25, 0.15]]]).log()
    weights = LossWeights(**NOTHING | {"interval_score": 1.0})
    error = (torch.logit(log_p.exp()) - torch.logit(center.exp())).abs()
    losses = [inter_dro(center, factor * error, log_p, weights)[0].item() for factor in (0.3, 1.0, 3.0)]
    assert losses[1] == min(losses)


def test_softmax_bounds_do_not_see_a_constant_radius() -> None:
    """Why InterFuse is the default: with softmax(c ± r) the width is not identified."""
    center = torch.tensor([[[1.0, 0.0, -1.0]]])
    log_p = torch.log_softmax(torch.tensor([[[0.5, 0.0, -0.5]]]), -1)
    losses = {
        softmax: [
            inter_dro(
                center,
                torch.full_like(center, r),
                log_p,
                LossWeights(**NOTHING | {"anchor_ce": 1.0, "bounds": 1.0, "softmax_bounds": softmax}),
            )[0].item()
            for r in (0.1, 2.0)
        ]
        for softmax in (True, False)
    }
    assert losses[True][0] == pytest.approx(losses[True][1], abs=1e-5)
    assert abs(losses[False][0] - losses[False][1]) > 0.1


def test_a_resumed_run_ends_with_the_same_weights_and_another_configuration_is_refused(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    pair = PairShape(vocab_size=16, grid=4, num_phrases=4, caption_length=2, feature_dim=2)
    shape = DrafterConfig(dim=16, num_heads=1, ffn_dim=16)
    cache = LawCache(
        torch.randint(0, 5, (12, 2), generator=generator),
        torch.randint(0, 16, (12, 16), generator=generator),
        torch.log_softmax(torch.randn(12, 16, 16, generator=generator), -1).half(),
    )
    config = DrafterTrainingConfig(num_steps=8, batch_size=4, warmup_steps=2)
    straight = DrafterTrainer(config, shape, pair, 0.75, tmp_path / "straight")
    straight.run(cache, 1.0)
    DrafterTrainer(config, shape, pair, 0.75, tmp_path / "parts").run(cache, 0.5)
    resumed = DrafterTrainer(config, shape, pair, 0.75, tmp_path / "parts")
    assert resumed.state.step == 4
    resumed.run(cache, 1.0)
    for (name, a), b in zip(straight.drafter.named_parameters(), resumed.drafter.parameters(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(ValueError, match=r"training\.batch_size"):
        DrafterTrainer(config.model_copy(update={"batch_size": 5}), shape, pair, 0.75, tmp_path / "parts")
