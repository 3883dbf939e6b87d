"""Scores as rankings: does a score of doubt put the right tokens last?

In: scores (n,), larger where there is more doubt, and what accepting each token costs. Out: figures. Knows neither
models nor roll-outs. (Risk-coverage curves and their area: Geifman and El-Yaniv, Selective Classification for Deep
Neural Networks, NeurIPS 2017, section 2.)
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def by_acceptance(score: Values, column: Values) -> Values:
    """A column (n,) in the order in which a score accepts it, ascending; ties count with their mean."""
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    return np.repeat(np.bincount(place, weights=column) / count, count)


def accepted_mean(score: Values, column: Values, share: float) -> float:
    """Mean of a column (n,) among the given share of least doubtful tokens, at least one."""
    ordered = by_acceptance(score, column)
    return float(ordered[: max(1, round(share * len(ordered)))].mean())


def risk_curve(score: Values, risk: Values) -> Values:
    """Mean risk among the k least doubtful, for k = 1 … n: (n,)."""
    return np.asarray(np.cumsum(by_acceptance(score, risk)) / np.arange(1, len(risk) + 1))


def aurc(score: Values, risk: Values) -> float:
    """Area under the risk-coverage curve: the mean of `risk_curve`."""
    return float(risk_curve(score, risk).mean())


def auroc(score: Values, positive: NDArray[np.bool_]) -> float:
    """Chance that a positive outranks a negative; ties count half. nan without both."""
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return math.nan
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]  # (n,) from 1, ties with their mean
    rank_sum = float(ranks[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)
