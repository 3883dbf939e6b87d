"""Trees of drafts: depths, ancestors, and runs of tokens through them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciar.shared.tree import ROOT, ancestry, children, depths, follow, longest_path

#       root
#      5    6
#    7   8    5
#        9
TOKENS = [5, 6, 7, 8, 5, 9]
PARENTS = np.array([-1, -1, 0, 0, 1, 3])


def test_a_written_out_tree() -> None:
    assert depths(PARENTS).tolist() == [0, 0, 1, 1, 1, 2]
    assert [np.flatnonzero(row).tolist() for row in ancestry(PARENTS)] == [[0], [1], [0, 2], [0, 3], [1, 4], [0, 3, 5]]
    assert children(TOKENS, PARENTS.tolist())[3, 9] == 5
    assert longest_path(TOKENS, PARENTS) == [5, 8, 9]


@pytest.mark.parametrize(
    ("run", "inside", "missed"),
    [
        ([4], 0, True),
        ([5, 9], 1, True),
        ([6, 5, 1], 2, False),
        ([5, 8, 9, 3], 3, False),
        ([5, 8], 2, False),
        ([], 0, False),
        ([6, 7], 1, True),
    ],
)
def test_runs(run: list[int], inside: int, missed: bool) -> None:
    assert follow(run, TOKENS, PARENTS.tolist()) == (inside, missed)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30))
def test_ancestors_are_the_way_to_the_root(numbers: list[int]) -> None:
    parents = np.array([number % (node + 1) - 1 for node, number in enumerate(numbers)])
    seen, depth = ancestry(parents), depths(parents)
    assert (seen.sum(1) == depth + 1).all()
    for node, parent in enumerate(parents.tolist()):
        way = set(np.flatnonzero(seen[node]).tolist())
        assert way == ({node} if parent == ROOT else {node, *np.flatnonzero(seen[parent]).tolist()})
    assert len(longest_path(numbers, parents)) == depth.max() + 1
