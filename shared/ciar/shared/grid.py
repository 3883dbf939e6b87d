"""The token grid: which known tokens around a position a drafter reads.

In: the size of a grid and offsets. Out: positions. One function for training and the device, which must agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Offset = tuple[int, int]
"""(rows up, columns to the right) of a neighbour."""

NEAREST: tuple[Offset, ...] = ((0, -1), (1, 0), (1, 1), (1, -1))
"""The raster predecessor, the one above, above right, above left."""


def neighbour_index(height: int, width: int, offsets: Sequence[Offset] = NEAREST) -> NDArray[np.int64]:
    """Positions of each token's neighbours, in the offsets' order: int64 (T, K); T stands for "none".

    Offsets in the same row count back along the raster, also across rows; others end at the grid's edges. Raises
    ValueError for an offset that is not before its own position in raster order.
    """
    num_tokens = height * width
    position = np.arange(num_tokens)
    row, column = np.divmod(position, width)
    columns = []
    for up, right in offsets:
        if up < 0 or (up == 0 and right >= 0):
            raise ValueError(f"offset ({up}, {right}): a neighbour must come before its token in raster order")
        inside = (position + right >= 0) if up == 0 else (row >= up) & (column + right >= 0) & (column + right < width)
        columns.append(np.where(inside, position - up * width + right, num_tokens))
    return np.stack(columns, axis=1).astype(np.int64)
