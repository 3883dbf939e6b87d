"""A tree of drafted tokens: what may follow what is decided, in several ways.

In: each node's token and parent, parents before children; −1 stands for what is decided, the root. Out: depths, who is
whose ancestor, and how far a run of tokens stays inside. Knows neither laws nor the wire.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Parents = NDArray[np.int64]

ROOT = -1


def depths(parents: Parents) -> NDArray[np.int64]:
    """(N,) nodes between each node and the root: 0 for the first level."""
    found = np.zeros(len(parents), np.int64)
    for node, parent in enumerate(parents.tolist()):
        found[node] = 0 if parent == ROOT else found[parent] + 1
    return found


def ancestry(parents: Parents) -> NDArray[np.bool_]:
    """(N, N) True where the column's node is the row's own, or lies on its way to the root."""
    seen = np.eye(len(parents), dtype=np.bool_)
    for node, parent in enumerate(parents.tolist()):
        if parent != ROOT:
            seen[node] |= seen[parent]
    return seen


def children(tokens: Sequence[int], parents: Sequence[int]) -> dict[tuple[int, int], int]:
    """(parent, token) -> node."""
    return {(parent, token): node for node, (parent, token) in enumerate(zip(parents, tokens, strict=True))}


def follow(run: Sequence[int], tokens: Sequence[int], parents: Sequence[int]) -> tuple[int, bool]:
    """How many of a run's tokens, from the root on, are in the tree; whether it leaves it where there were children."""
    offers, node = children(tokens, parents), ROOT
    for num_inside, token in enumerate(run):
        child = offers.get((node, token))
        if child is None:
            return num_inside, node in parents
        node = child
    return len(run), False


def longest_path(tokens: Sequence[int], parents: Parents) -> list[int]:
    """The tokens from the root to a deepest node, the first of them."""
    node, path = int(depths(parents).argmax()), []
    while node != ROOT:
        path.append(tokens[node])
        node = int(parents[node])
    return path[::-1]
