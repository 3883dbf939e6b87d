"""Interval mathematics of the Inter-Head: logit intervals, probability intervals and their uncertainty.

In: centre logits and radii, or bounds. Out: bounds and one number per token. Everything works over the last axis, is
stable for logits of ±1e4 and costs O(V). This is the reference for the same formulas inside the drafter's graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def interfuse(center: Array, radius: Array) -> tuple[Array, Array]:
    """Probability interval of the logit interval [center − radius, center + radius] (InterFuse; our reading).

    Each token's upper bound is its softmax probability when its own logit is raised by its radius and all others
    stay at their centres; the lower bound likewise. That is a shift of the log-odds by the radius, hence
    lower ≤ softmax(center) ≤ upper and Σ lower ≤ 1 ≤ Σ upper.

    center: (…, V); radius: (…, V), ≥ 0, finite. Returns (lower, upper), each (…, V) in float64.
    Raises ValueError for a radius that is not.
    """
    center, radius = np.asarray(center, np.float64), np.asarray(radius, np.float64)
    if not ((radius >= 0) & np.isfinite(radius)).all():
        raise ValueError("radius must be finite and ≥ 0 everywhere")
    log_odds = _log_odds(center)  # (…, V)
    return _sigmoid(log_odds - radius), _sigmoid(log_odds + radius)


def ambiguity(lower: Array, upper: Array) -> Array:
    """Ω = ‖upper − lower‖₁, the total width (paper): (…, V) bounds -> (…)."""
    return np.asarray((upper - lower).sum(-1))


def disparity(lower: Array, upper: Array) -> Array:
    """Σ, the population standard deviation of the widths (paper): (…, V) bounds -> (…)."""
    return np.asarray((upper - lower).std(-1))


def uncertainty(lower: Array, upper: Array) -> Array:
    """U = Ω · Σ, the paper's score of a token: (…, V) bounds -> (…)."""
    return ambiguity(lower, upper) * disparity(lower, upper)


def _log_odds(center: Array) -> Array:
    """log(m / (1 − m)) for m = softmax(center), without ever forming 1 − m by subtraction."""
    shifted = center - center.max(-1, keepdims=True)
    weights = np.exp(shifted)  # (…, V), the largest is 1
    total = weights.sum(-1, keepdims=True)
    top = np.expand_dims(weights.argmax(-1), -1)
    rest = total - weights  # accurate unless the token itself dominates the sum: only the top one can
    without_top = np.where(np.arange(center.shape[-1]) == top, 0.0, weights).sum(-1, keepdims=True)
    np.put_along_axis(rest, top, without_top, -1)
    with np.errstate(divide="ignore"):
        return np.asarray(shifted - np.log(rest))  # +inf for a token that holds everything


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-x)))
