"""Verification: which guesses the cloud's own samples confirm.

In: the cloud's samples at the positions of a window, and the guesses that were in its input. Out: how many of the
samples are verified. With the common noise a sample is a function of the tokens before it, so as long as the guesses
before a position are the cloud's own tokens, so is the sample there, whether the guess at that position was right or
not (the Gumbel coupling of Daliri et al., arXiv 2408.07978, in the fixed-point iteration of speculative Jacobi
decoding, arXiv 2410.01699). Nothing else is needed to be exact: where the guess came from does not matter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ciar.shared.types import Tokens


def count_verified(samples: Tokens, guesses: Tokens) -> int:
    """How many of the samples (n,), n ≥ 1, are verified: up to and with the first that differs from its guess (n,)."""
    differing = np.flatnonzero(samples != guesses)
    return int(differing[0]) + 1 if differing.size else len(samples)


def total_variation(p: NDArray[np.floating], q: NDArray[np.floating]) -> NDArray[np.floating]:
    """TV(p, q) = ½‖p − q‖₁ over the last axis: (…, V) -> (…)."""
    return np.asarray(0.5 * np.abs(p - q).sum(-1))
