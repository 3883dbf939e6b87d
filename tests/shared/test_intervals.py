"""InterFuse and the uncertainty: the properties that the method promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from ciar.shared.intervals import ambiguity, disparity, interfuse, uncertainty
from ciar.shared.verification import total_variation

Array = NDArray[np.float64]

SIZES = st.integers(2, 40)
WIDTHS = SIZES.flatmap(lambda size: arrays(np.float64, size, elements=st.floats(0, 1)))


@st.composite
def logit_intervals(draw: st.DrawFn, bound: float = 30.0) -> tuple[Array, Array]:
    """Centre logits within ±bound and radii within [0, 10]."""
    size = draw(SIZES)
    center = draw(arrays(np.float64, size, elements=st.floats(-bound, bound)))
    radius = draw(arrays(np.float64, size, elements=st.floats(0, 10)))
    return center, radius


def softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def score(widths: Array) -> float:
    """U of bare widths."""
    return float(uncertainty(np.zeros_like(widths), widths))


# ---- the five properties -------------------------------------------------------------------------------------------


@given(WIDTHS)
def test_1_uncertainty_is_not_negative(widths: Array) -> None:
    assert score(widths) >= 0


@given(SIZES, st.floats(0, 1))
def test_1_uncertainty_is_zero_for_equal_widths(size: int, width: float) -> None:
    assert score(np.full(size, width)) == pytest.approx(0, abs=1e-12)


@given(WIDTHS)
def test_1_uncertainty_is_positive_for_unequal_widths(widths: Array) -> None:
    if np.ptp(widths) > 1e-3:
        assert score(widths) > 1e-8


@given(WIDTHS, st.floats(0, 100))
def test_2_uncertainty_scales_with_the_square(widths: Array, factor: float) -> None:
    assert score(factor * widths) == pytest.approx(factor**2 * score(widths), rel=1e-9, abs=1e-9)


@given(WIDTHS)
def test_3_uncertainty_is_bounded_by_ambiguity(widths: Array) -> None:
    size = widths.size
    omega = float(ambiguity(np.zeros(size), widths))
    assert score(widths) <= omega**2 * np.sqrt(size - 1) / size + 1e-9


@given(SIZES, st.floats(0.01, 1))
def test_3_bound_is_reached_by_one_wide_token(size: int, width: float) -> None:
    widths = np.zeros(size)
    widths[0] = width
    assert score(widths) == pytest.approx(width**2 * np.sqrt(size - 1) / size)


@given(WIDTHS)
def test_4_uncertainty_is_bounded_by_the_sum_of_squares(widths: Array) -> None:
    assert score(widths) <= (widths**2).sum() + 1e-9


@given(logit_intervals(), st.randoms(use_true_random=False))
def test_5_feasible_distributions_differ_by_at_most_the_ambiguity(
    interval: tuple[Array, Array], random: object
) -> None:
    lower, upper = interfuse(*interval)
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    p, q = feasible(lower, upper, rng), feasible(lower, upper, rng)
    omega = float(ambiguity(lower, upper))
    assert np.abs(p - q).sum() <= omega + 1e-9
    assert total_variation(p, q) <= omega / 2 + 1e-9


def feasible(lower: Array, upper: Array, rng: np.random.Generator) -> Array:
    """A random distribution inside the bounds: start at the lower ones and fill tokens up in a random order."""
    p = lower.copy()
    for token in rng.permutation(p.size):
        p[token] += min(upper[token] - lower[token], max(0.0, 1 - p.sum()))
    assert p.sum() == pytest.approx(1, abs=1e-9)
    assert ((lower <= p) & (p <= upper + 1e-12)).all()
    return p


# ---- InterFuse -----------------------------------------------------------------------------------------------------


@given(logit_intervals())
def test_bounds_enclose_the_softmax_and_the_simplex(interval: tuple[Array, Array]) -> None:
    center, radius = interval
    lower, upper = interfuse(center, radius)
    middle = softmax(center)
    assert (lower >= 0).all()
    assert (upper <= 1).all()
    assert (lower <= middle * (1 + 1e-9)).all()
    assert (middle <= upper * (1 + 1e-9)).all()
    assert lower.sum() <= 1 + 1e-9
    assert upper.sum() >= 1 - 1e-9


@given(logit_intervals(bound=8))
def test_bounds_are_the_softmax_with_one_logit_moved(interval: tuple[Array, Array]) -> None:
    center, radius = interval
    lower, upper = interfuse(center, radius)
    for token in range(center.size):
        moved = center.copy()
        moved[token] = center[token] + radius[token]
        assert upper[token] == pytest.approx(softmax(moved)[token], rel=1e-9)
        moved[token] = center[token] - radius[token]
        assert lower[token] == pytest.approx(softmax(moved)[token], rel=1e-9)


@given(logit_intervals(), st.floats(0, 5))
def test_a_larger_radius_never_narrows(interval: tuple[Array, Array], more: float) -> None:
    center, radius = interval
    lower, upper = interfuse(center, radius)
    wider_lower, wider_upper = interfuse(center, radius + more)
    assert (wider_lower <= lower).all()
    assert (wider_upper >= upper).all()


@given(logit_intervals())
def test_no_radius_is_no_ambiguity(interval: tuple[Array, Array]) -> None:
    center, _ = interval
    lower, upper = interfuse(center, np.zeros_like(center))
    np.testing.assert_array_equal(lower, upper)
    np.testing.assert_allclose(lower, softmax(center), rtol=1e-9)


@given(logit_intervals(bound=1e4))
def test_huge_logits_stay_finite(interval: tuple[Array, Array]) -> None:
    center, radius = interval
    lower, upper = interfuse(center, radius)
    assert np.isfinite(lower).all()
    assert np.isfinite(upper).all()
    assert (lower <= upper).all()
    assert upper.sum() >= 1 - 1e-9
    assert lower.sum() <= 1 + 1e-9


def test_two_huge_logits_share_the_probability() -> None:
    lower, upper = interfuse(np.array([1e4, 1e4, -1e4]), np.array([1.0, 1.0, 1.0]))
    sigmoid = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(upper, [sigmoid, sigmoid, 0], atol=1e-12)
    np.testing.assert_allclose(lower, [1 - sigmoid, 1 - sigmoid, 0], atol=1e-12)


def test_works_over_the_last_axis_of_any_shape() -> None:
    rng = np.random.default_rng(0)
    center, radius = rng.normal(size=(2, 3, 7)), rng.random((2, 3, 7))
    lower, upper = interfuse(center, radius)  # (2, 3, 7)
    one_lower, one_upper = interfuse(center[1, 2], radius[1, 2])
    np.testing.assert_array_equal(lower[1, 2], one_lower)
    np.testing.assert_array_equal(upper[1, 2], one_upper)
    assert uncertainty(lower, upper).shape == (2, 3)
    widths = upper - lower
    np.testing.assert_allclose(ambiguity(lower, upper), np.abs(widths).sum(-1))
    np.testing.assert_allclose(
        disparity(lower, upper), np.sqrt(((widths - widths.mean(-1, keepdims=True)) ** 2).mean(-1))
    )


@pytest.mark.parametrize("radius", [-1e-6, np.nan, np.inf])
def test_a_radius_must_be_finite_and_not_negative(radius: float) -> None:
    with pytest.raises(ValueError, match="radius"):
        interfuse(np.zeros(3), np.array([0.0, radius, 0.0]))
