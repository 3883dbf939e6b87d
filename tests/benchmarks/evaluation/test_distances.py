"""Distances against closed forms and by seeded statistics; ratios with intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from ciar.benchmarks.evaluation.distances import (
    bootstrap_ratio,
    frechet_distance,
    kernel_distance,
    least_samples,
    principal_basis,
)
from ciar.shared.errors import InvalidRequest


def exact_sample(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A sample whose own mean and (unbiased) covariance are those given: (count, D)."""
    x = np.random.default_rng(seed).normal(size=(count, len(mean)))
    x -= x.mean(0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return mean + white @ np.linalg.cholesky(covariance).T


def test_frechet_of_a_set_with_itself_is_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(50, 8))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_of_a_moved_set_is_the_square_of_the_way() -> None:
    x = np.random.default_rng(0).normal(size=(50, 8))
    assert frechet_distance(x, x + np.arange(8)) == pytest.approx(np.square(np.arange(8)).sum())


def test_frechet_of_gaussians_is_the_closed_form() -> None:
    """Against the matrix square root of the (unsymmetric) product, by another algorithm."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 4, 4))
    first, second = a @ a.T + np.eye(4), b @ b.T + 0.1 * np.eye(4)
    mean = np.array([1.0, 0, -2, 0.5])
    expected = mean @ mean + np.trace(first + second - 2 * np.real(linalg.sqrtm(first @ second)))
    measured = frechet_distance(exact_sample(np.zeros(4), first, 40, 2), exact_sample(mean, second, 60, 3))
    assert measured == pytest.approx(expected)


def test_frechet_holds_for_singular_covariances() -> None:
    x = np.random.default_rng(0).normal(size=(30, 3)) @ np.diag([1.0, 1.0, 0.0])
    assert frechet_distance(x, 3 * x) == pytest.approx(
        np.square(2 * x.mean(0)).sum() + 4 * np.trace(np.cov(x, rowvar=False)), rel=1e-6
    )


def test_frechet_says_how_many_pictures_it_needs() -> None:
    x = np.zeros((least_samples(8) - 1, 8))
    with pytest.raises(InvalidRequest, match=r"15 are too few.* in 8 dimensions; draw at least 16"):
        frechet_distance(x, np.zeros((100, 8)))


def test_kernel_distance_is_unbiased() -> None:
    """Mean over 200 pairs of sets of 20 from one law: within four standard errors of 0; a biased one lies 50 above."""
    rng = np.random.default_rng(0)
    values = np.array([kernel_distance(*rng.normal(size=(2, 20, 6))) for _ in range(200)])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))
    assert (values < 0).any()


def test_kernel_distance_sees_a_shift_and_nothing_between_equal_sets() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 100, 6))
    assert kernel_distance(x, x) == pytest.approx(0, abs=1e-12)
    assert kernel_distance(x, y + 1) > 10 * abs(kernel_distance(x, y))


def test_basis_keeps_what_varies() -> None:
    x = np.random.default_rng(0).normal(size=(100, 5)) @ np.diag([10.0, 0.1, 5.0, 0.1, 0.1])
    basis = principal_basis(x, 2)
    assert basis.explained > 0.99
    assert np.abs(basis.directions[[0, 2]]).max(1) == pytest.approx([1, 1], abs=1e-2)
    assert basis(x).mean(0) == pytest.approx([0, 0], abs=1e-9)


def test_ratio_of_a_figure_to_itself_is_certain() -> None:
    ratio = _ratio_of_means(np.arange(1.0, 41), np.arange(1.0, 41), np.arange(40))
    assert (ratio.value, ratio.low, ratio.high) == (1, 1, 1)


def test_interval_covers_the_true_ratio() -> None:
    """Noisy means of 2 and 1: of 60 intervals of 95 % at least 51 cover their ratio (fewer: p < .001)."""
    rng = np.random.default_rng(0)
    ratios = [
        _ratio_of_means(rng.normal(2, 0.5, 60), rng.normal(1, 0.2, 60), np.arange(60), seed) for seed in range(60)
    ]
    assert sum(ratio.low <= 2 <= ratio.high for ratio in ratios) >= 51
    assert all(ratio.high - ratio.low < 0.5 for ratio in ratios)


def test_copies_of_a_picture_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    above, below = rng.normal(2, 0.5, 30), rng.normal(1, 0.2, 30)
    once = _ratio_of_means(above, below, np.arange(30))
    copied = _ratio_of_means(np.repeat(above, 4), np.repeat(below, 4), np.repeat(np.arange(30), 4))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


def test_no_ratio_to_nothing() -> None:
    ratio = _ratio_of_means(np.ones(10), np.zeros(10), np.arange(10))
    assert np.isnan([ratio.value, ratio.low, ratio.high]).all()


def _ratio_of_means(above: np.ndarray, below: np.ndarray, clusters: np.ndarray, seed: int = 0):
    return bootstrap_ratio(
        lambda rows: above[rows].mean(), lambda rows: below[rows].mean(), clusters, 300, np.random.default_rng(seed)
    )
