"""The acceptance rule: which drafted tokens stand, where the cloud's own takes over.

p is the cloud's law, q the device's, x a drafted token, y the cloud's. In: the cloud's logits at the asked positions of
a block. Out: how far the block stands, and the correction. This numpy code is what the server runs, and the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.coupling import Draw, draw
from shared.types import Sampling

Logits = NDArray[np.float32]


Rule = Callable[[Logits, int, int], Draw]
"""(logits of p (V,), position, drafted token x) -> the token that stands there: x itself if it is accepted."""


def coupled(sampling: Sampling) -> Rule:
    """y = argmax(log p + g); accept iff x = y (ours; Gumbel coupling).

    Since x = argmax(log q + g) with the same g, the output is the cloud's own picture for that seed, whatever q is.
    """

    def rule(logits: Logits, position: int, _drafted: int) -> Draw:
        return draw(logits, position, sampling)

    return rule


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule made of a block."""

    corrected_at: int | None
    """Position of the first token that did not stand."""
    token: int | None
    """The cloud's token there."""
    near_ties: tuple[int, ...]
    """Asked positions, up to the correction, that were decided by less than the near-tie tolerance."""


def verify(
    rule: Rule, logits_at: Callable[[int], Logits], asked: Iterable[int], drafted: Callable[[int], int]
) -> Outcome:
    """Apply `rule` to the asked positions in ascending order, up to the first correction.

    logits_at(position) -> (V,), the cloud's logits there; drafted(position) -> the device's token there.
    """
    near_ties: list[int] = []
    for position in asked:
        verdict = rule(logits_at(position), position, drafted(position))
        if verdict.is_near_tie:
            near_ties.append(position)
        if verdict.token != drafted(position):
            return Outcome(position, verdict.token, tuple(near_ties))
    return Outcome(None, None, tuple(near_ties))


def total_variation(p: NDArray[np.floating], q: NDArray[np.floating]) -> NDArray[np.floating]:
    """TV(p, q) = ½‖p − q‖₁ over the last axis: (…, V) -> (…)."""
    return np.asarray(0.5 * np.abs(p - q).sum(-1))
