"""What a pass is made of: the segments that sessions want computed, and what an engine asks of a session.

Between bookkeeping and tensors: sessions make segments, the runner computes them. Knows neither gRPC nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ciar.shared.errors import CiarError


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """What one session wants of a pass: input rows to add to its cache, and positions whose logits it needs.

    Input row C + i holds token i; rows 0 … C − 1 are the conditioning. The row before a token predicts it.
    """

    slot: int
    guidance: float
    condition: NDArray[np.int64]
    """(C,)"""
    start: int
    """First input row; all rows before it are in the cache."""
    tokens: NDArray[np.int64]
    """(k,) the tokens of the rows ≥ C; with `start` 0 the C conditioning rows come first."""
    features: NDArray[np.float32] | None
    """(k, r), or None if no row has one."""
    wanted: NDArray[np.int64]
    """(w,) token positions, ascending."""

    @property
    def num_rows(self) -> int:
        """Number of input rows of one of the session's sequences."""
        return len(self.tokens) + (len(self.condition) if self.start == 0 else 0)

    @property
    def end(self) -> int:
        """Row after the last input row."""
        return self.start + self.num_rows


class PassSession(Protocol):
    """What the engine asks of a session; all calls come from the engine's thread."""

    id: str
    finished: bool
    applied_seq: int
    """The last Draft taken in; may be read from any thread."""

    @property
    def has_work(self) -> bool:
        """Whether the next pass should have a segment of it."""
        ...

    def receive(self, frame: Any, arrived_ns: int, /) -> None:
        """Take a frame and when it came (of `perf_counter_ns`). Raises a CiarError that ends this session."""
        ...

    def next_segment(self, row_cost: float, /) -> Segment:
        """What the next pass shall compute; row_cost: what an input row more costs, in parts of a pass without rows."""
        ...

    def absorb(self, segment: Segment, logits: NDArray[np.float32], started_ns: int, forward_ns: int, /) -> None:
        """Take the logits (w, V) of the segment's wanted positions."""
        ...

    def fail(self, error: CiarError, /) -> None:
        """End with an error."""
        ...
