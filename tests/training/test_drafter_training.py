"""The loss terms and the ranking figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.drafter_training import LossWeights, inter_dro
from training.metrics import auroc


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(2, 5, 8, generator=generator, requires_grad=True)
    radius = torch.rand(2, 5, 8, generator=generator, requires_grad=True)
    log_p = torch.log_softmax(torch.randn(2, 5, 8, generator=generator), -1)
    return center, radius, log_p


NOTHING = {"align": 0.0, "anchor_l1": 0.0, "laplace": 0.0}


def test_align_vanishes_for_the_right_centre(case: tuple) -> None:
    _, radius, log_p = case
    loss, terms = inter_dro(log_p.clone(), radius, log_p, LossWeights(**NOTHING | {"align": 1.0}))
    assert abs(loss.item()) < 1e-6
    assert terms["tv"] < 1e-6


@pytest.mark.parametrize("name", ["bounds", "dro", "laplace", "width"])
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


def test_auroc_never_always_and_by_chance() -> None:
    positive = np.array([False, False, True, True])
    assert auroc(np.array([0.1, 0.2, 0.3, 0.4]), positive) == 1.0
    assert auroc(np.array([0.4, 0.3, 0.2, 0.1]), positive) == 0.0
    assert auroc(np.zeros(4), positive) == 0.5
    assert np.isnan(auroc(np.zeros(4), np.zeros(4, bool)))
