"""What passes cost by their rows, learnt from those that were run.

In: rows and time of each pass. Out: what a row more costs, over what a pass costs whatever its rows. A pass of few rows
reads all weights; how much a row adds differs a hundredfold between a small model on one core and a large one on a GPU.
"""

from __future__ import annotations

DEFAULT_ROW_COST = 0.1
"""Until enough has been seen."""

MAX_ROWS = 64
"""Longer passes are left out: they are another regime, and there are few of them."""

MEMORY = 256
"""Passes after which one counts for about a third of a new one."""

MIN_SPREAD = 1.0
"""Least standard deviation of the rows, from which on a slope can be told."""


class PassCost:
    """Least squares of time = fixed + slope · rows, in which older passes count less (ours)."""

    def __init__(self) -> None:
        self._count = self._rows = self._time = self._rows_squared = self._rows_time = 0.0

    def add(self, num_rows: int, seconds: float) -> None:
        """Take note of a pass."""
        if num_rows > MAX_ROWS:
            return
        keep = 1 - 1 / MEMORY
        self._count = keep * self._count + 1
        self._rows = keep * self._rows + num_rows
        self._time = keep * self._time + seconds
        self._rows_squared = keep * self._rows_squared + num_rows**2
        self._rows_time = keep * self._rows_time + num_rows * seconds

    @property
    def row_cost(self) -> float:
        """Slope over fixed, in [0, 1]."""
        if not self._count:
            return DEFAULT_ROW_COST
        mean_rows, mean_time = self._rows / self._count, self._time / self._count
        variance = self._rows_squared / self._count - mean_rows**2
        if variance < MIN_SPREAD**2:
            return DEFAULT_ROW_COST
        slope = (self._rows_time / self._count - mean_rows * mean_time) / variance
        fixed = mean_time - slope * mean_rows
        return min(1.0, max(0.0, slope) / fixed) if fixed > 0 else 1.0
