"""Baseline gates: a calibrated threshold as CIAR's, over other measures of doubt.

A *doubt* turns what the drafter says of a token into one number, larger where it is less sure. A gate asks above the
threshold that a given share of the doubts of a calibration run exceeded, as the gate `CalibratedThreshold`
does for U on held-out captions. Which share, `methods` says: the same for all gates, so that they differ in what they
look at and in nothing else. The rows of the paper's gate ablation are random, entropy (Entropy-Lens), SoftmaxCorr and
the Inter-Head; no code of them was released.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ciar.device_client.gates import CalibratedThreshold, Gate, Scores

Doubt = Callable[[int, Scores], float]
"""(position, scores with center) -> doubt, a pure function."""


def uncertainty(_position: int, scores: Scores) -> float:
    """U, what CIAR's own gate looks at."""
    return scores.uncertainty


def ambiguity(_position: int, scores: Scores) -> float:
    """Ω alone."""
    return scores.ambiguity


def probabilities(scores: Scores) -> NDArray[np.float64]:
    """softmax of the centre logits (V,): the drafter's law at temperature 1, before top-k and top-p."""
    assert scores.center is not None, "the drafter gives its law with the scores"
    weights = np.exp(scores.center - scores.center.max(), dtype=np.float64)
    return np.asarray(weights / weights.sum())  # (V,)


def entropy(_position: int, scores: Scores) -> float:
    """Shannon entropy of the drafter's law, in nats. Our reading of the paper's Entropy-Lens row."""
    p = probabilities(scores)
    return float(-(p * np.log(np.maximum(p, 1e-300))).sum())


def max_probability(_position: int, scores: Scores) -> float:
    """1 − max p. Our reading of the paper's SoftmaxCorr row, named after a confidence built on the largest softmax
    probability; as a correlation over a data set it could not judge a single token.
    """
    return 1.0 - float(probabilities(scores).max())


def margin(_position: int, scores: Scores) -> float:
    """1 − (p₁ − p₂), p₁ and p₂ the two most likely tokens' probabilities (margin sampling; not in the paper)."""
    second, first = np.partition(probabilities(scores), -2)[-2:]
    return 1.0 - float(first - second)


def outside_set(size: int) -> Doubt:
    """1 − the mass of the `size` most likely tokens: the discrete solution sets of the paper, as we read them.

    The paper compares its continuous intervals with discrete sets of k = 100 and 300 tokens of 16 384, dearer as k
    grows. What a set's confidence is, is not public; the mass that the law gives to it is the plainest reading. Choose
    k in proportion to the vocabulary: 100 of 16 384 is 3 of 512.
    """

    def doubt(_position: int, scores: Scores) -> float:
        p = probabilities(scores)
        return 1.0 - float(p.sum() if size >= p.size else np.partition(p, -size)[-size:].sum())

    return doubt


def random_doubt(seed: int, num_tokens: int) -> Doubt:
    """A position's place in a random order of all, in (0, 1): of every picture a gate asks the same share.

    It depends on (seed, position) only, so a picture stays a function of its seed. Its stream is not the sampler's: a
    high bit where that has the position sets it apart.
    """
    words = np.random.Philox(key=np.array([seed, 1 << 63], np.uint64)).random_raw(num_tokens)  # (T,)
    places = (words.argsort().argsort() + 0.5) / num_tokens  # (T,)
    return lambda position, _scores: float(places[position])


class DoubtThreshold:
    """Asks about doubts larger than all but the given share of those that a calibration run saw."""

    def __init__(self, name: str, doubt: Doubt, share: float, seen: Sequence[float]) -> None:
        """share in [0, 1]; seen: doubts, ascending, or evenly spaced quantiles of them, 0 to 1."""
        self.name = f"{name}:{share:g}"
        self._doubt = doubt
        self._threshold = CalibratedThreshold(share, seen)

    def must_verify(self, position: int, scores: Scores) -> bool:
        return self._threshold.must_verify(position, Scores(0.0, 0.0, self._doubt(position, scores)))

    def rollback(self, position: int) -> None:
        self._threshold.rollback(position)


class Recorder:
    """Another gate, noting every doubt of the tokens that stand: the calibration pass of `DoubtThreshold`."""

    def __init__(self, gate: Gate, doubts: Mapping[str, Doubt]) -> None:
        self._gate = gate
        self._doubts = doubts
        self._seen: list[tuple[int, dict[str, float]]] = []
        self.name = gate.name

    def must_verify(self, position: int, scores: Scores) -> bool:
        self._seen.append((position, {name: doubt(position, scores) for name, doubt in self._doubts.items()}))
        return self._gate.must_verify(position, scores)

    def rollback(self, position: int) -> None:
        while self._seen and self._seen[-1][0] >= position:
            self._seen.pop()
        self._gate.rollback(position)

    def values(self, name: str) -> list[float]:
        """One doubt of every position seen, in order."""
        return [doubts[name] for _, doubts in self._seen]
