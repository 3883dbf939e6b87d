"""How many positions a pass had better verify: learnt from how often guesses held, by where they came from.

In: for each pass, the origins of the guesses in its window and which held. Out: the window for the next one, given what
a row costs. Plain Python, without torch; one instance serves all sessions of an engine.

A window is a number of positions, L. In a steady state it moves on by E positions a pass, so the guess at offset i has
been refreshed (L − 1 − i) / E times before; with a(k) the share of guesses that hold after k refreshes,
E = Σⱼ Πᵢ₍ᵢ₌₀…ⱼ₋₁₎ a((L − 1 − i) / E), and a token costs (1 + c·rows) / E passes. The L with the least is chosen (ours).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

MAX_REFRESHES = 6
"""Guesses that were refreshed more often count as refreshed so often."""

_CANDIDATES = np.array([1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64])
_PRIOR = 4.0
_MEMORY = 2000.0
"""Guesses after which an old one counts for about a third of a new one."""
_RENEW = 12
"""Passes after which a choice is made anew."""
_MIN_ROW_COST = 0.003


class Origin(IntEnum):
    """Where a guess first came from."""

    NEIGHBOUR = 0
    """The cloud's own first guess."""
    DRAFT = 1
    """A device's drafter."""


class WindowPolicy:
    """Learns how often guesses hold, and chooses windows."""

    def __init__(self) -> None:
        prior = np.linspace(0.6, 0.85, MAX_REFRESHES + 1)  # (refreshes,)
        self._tried = np.full((len(Origin), MAX_REFRESHES + 1), _PRIOR)
        self._held = self._tried * np.stack([prior, np.maximum(prior, 0.8)])
        self._chosen: dict[tuple[Origin, int], tuple[int, int]] = {}  # -> (pass of the choice, window)
        self._num_passes = 0

    def observe(self, origins: NDArray[np.int8], refreshes: NDArray[np.int8], held: NDArray[np.bool_]) -> None:
        """Take note of a pass: origins, refreshes and fate (n,) of its verified guesses, in order.

        Guesses behind the first that failed say nothing: they were verified against a history that was not to be.
        """
        self._num_passes += 1
        keep = 1 - len(origins) / _MEMORY
        self._tried *= keep
        self._held *= keep
        np.add.at(self._tried, (origins, refreshes), 1.0)
        np.add.at(self._held, (origins, refreshes), held)

    def hold_rates(self, origin: Origin) -> NDArray[np.float64]:
        """(MAX_REFRESHES + 1,) share of the guesses that held, by refreshes."""
        return np.asarray(self._held[origin] / self._tried[origin])

    def choose(self, origin: Origin, row_cost: float, rows_per_position: float = 1.0) -> int:
        """Positions worth verifying in one pass, where guesses begin as `origin`.

        row_cost: c, of an input row, in parts of a pass without rows; rows_per_position ≥ 1: tokens that need no
        verification lie between those that do.
        """
        c = max(row_cost, _MIN_ROW_COST) * rows_per_position
        key = origin, round(10 * np.log2(c))
        made, window = self._chosen.get(key, (-_RENEW, 1))
        if self._num_passes - made >= _RENEW:
            window = best_window(self.hold_rates(origin), c)
            self._chosen[key] = self._num_passes, window
        return window


def best_window(rates: NDArray[np.float64], row_cost: float) -> int:
    """The window with the least cost a token; rates: (refreshes,) share of guesses that hold."""
    costs = [(1 + row_cost * length) / advance(rates, length) for length in _CANDIDATES.tolist()]
    return int(_CANDIDATES[int(np.argmin(costs))])


def advance(rates: NDArray[np.float64], length: int) -> float:
    """E: positions by which a window of `length` moves on in a pass, in its steady state."""
    offsets = np.arange(length - 1)
    expected = 1.0
    for _ in range(4):  # a few steps of the fixed point are close enough
        refreshes = np.minimum((length - 1 - offsets) / expected, len(rates) - 1)
        holding = np.interp(refreshes, np.arange(len(rates)), rates)  # (L − 1,)
        expected = 1.0 + float(np.cumprod(holding).sum())
    return expected
