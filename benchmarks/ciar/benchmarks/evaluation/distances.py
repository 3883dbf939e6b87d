"""Distances between two sets of feature vectors, and how sure a ratio of them is.

Flows in: feature vectors. Flows out: numbers. Knows nothing of pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ciar.shared.errors import InvalidRequest

Features = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Basis:
    """The directions in which a reference set varies most."""

    mean: Features  # (F,)
    directions: Features  # (F, D), orthonormal columns
    explained: float
    """Share of the reference's variance that they hold."""

    def __call__(self, features: Features) -> Features:
        """Coordinates of features (N, F): (N, D)."""
        return (features - self.mean) @ self.directions


def principal_basis(reference: Features, num_directions: int) -> Basis:
    """The first principal components of features (N, F)."""
    mean = reference.mean(0)
    _, scale, rows = np.linalg.svd(reference - mean, full_matrices=False)  # (K,), (K, F)
    variance = np.square(scale)
    explained = variance[:num_directions].sum() / max(variance.sum(), np.finfo(float).tiny)
    return Basis(mean, rows[:num_directions].T, float(explained))


def least_samples(num_dimensions: int) -> int:
    """Vectors that a covariance in so many dimensions needs: two for each (ours)."""
    return 2 * num_dimensions


def frechet_distance(first: Features, second: Features) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½) of the Gaussians fitted to two sets (N, D), (M, D).

    The square of the Fréchet distance, as is usual (Dowson and Landau 1982; Heusel et al. 2017, FID). Both roots come
    from eigenvalues of symmetric matrices, so nothing is complex. Raises InvalidRequest for fewer than 2 D vectors.
    """
    dimensions = first.shape[1]
    fewest, needed = min(len(first), len(second)), least_samples(dimensions)
    if fewest < needed:
        raise InvalidRequest(
            f"pictures: {fewest} are too few for a Fréchet distance in {dimensions} dimensions; draw at least {needed}"
        )
    shift = first.mean(0) - second.mean(0)  # (D,)
    cov_first, cov_second = np.cov(first, rowvar=False, ddof=1), np.cov(second, rowvar=False, ddof=1)
    values, vectors = np.linalg.eigh(np.atleast_2d(cov_first))
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T  # (D, D)
    inner = np.linalg.eigvalsh(root @ np.atleast_2d(cov_second) @ root)
    overlap = np.sqrt(np.clip(inner, 0, None)).sum()
    return float(max(0.0, shift @ shift + np.trace(np.atleast_2d(cov_first + cov_second)) - 2 * overlap))


def kernel_distance(first: Features, second: Features) -> float:
    """Unbiased squared MMD of two sets (N, F) under k(x, y) = (x·y / F + 1)³; it may be negative.

    The KID of Bińkowski et al. (*Demystifying MMD GANs*, ICLR 2018), as the U-statistic over pairs i ≠ j (Gretton et
    al., JMLR 2012, lemma 6): rows i of both sets may belong together, by caption and seed, and equal sets are at 0.
    Raises InvalidRequest for fewer than two vectors.
    """
    assert first.shape == second.shape, "the sets go row by row"
    if len(first) < 2:
        raise InvalidRequest("pictures: a kernel distance needs at least 2")
    within = _mean_off_diagonal(_kernel(first, first)) + _mean_off_diagonal(_kernel(second, second))
    return within - 2 * _mean_off_diagonal(_kernel(first, second))


def _kernel(x: Features, y: Features) -> Features:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_off_diagonal(matrix: Features) -> float:
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))


@dataclass(frozen=True)
class Ratio:
    """A figure over the base's, with a 95 % interval over captions."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


def bootstrap_ratio(
    above: Callable[[Rows], float],
    below: Callable[[Rows], float],
    clusters: NDArray[np.int64],
    num_resamples: int,
    rng: np.random.Generator,
) -> Ratio:
    """above(rows) / below(rows) over all rows, and its interval over resampled clusters.

    clusters: (N,) which rows belong together (pictures of one caption); whole clusters are drawn with replacement, the
    same ones above and below. A resampled set repeats pictures, which makes it look further from any other set; so the
    quantiles of the resampled ratios are moved to have their median at the ratio itself (ours). nan where the base's
    figure is not positive.
    """
    members = [np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)]
    everything = np.arange(len(clusters))

    def ratio(rows: Rows) -> float:
        base = below(rows)
        return above(rows) / base if base > 0 else float("nan")

    value = ratio(everything)
    draws = rng.integers(0, len(members), (num_resamples, len(members)))
    drawn = np.array([ratio(np.concatenate([members[i] for i in draw])) for draw in draws])
    low, middle, high = np.nanquantile(drawn, (0.025, 0.5, 0.975)) if np.isfinite(drawn).any() else (value,) * 3
    return Ratio(value, float(value + low - middle), float(value + high - middle))
