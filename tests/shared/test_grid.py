"""Neighbours of a position: only what is known, and nothing across an edge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciar.shared.grid import NEAREST, neighbour_index


def test_nearest_neighbours_of_a_3_by_3_grid() -> None:
    none = 9
    expected = {0: [none] * 4, 2: [1, none, none, none], 3: [2, 0, 1, none], 4: [3, 1, 2, 0], 5: [4, 2, none, 1]}
    index = neighbour_index(3, 3)
    for position, neighbours in expected.items():
        assert index[position].tolist() == neighbours


def test_the_same_row_counts_along_the_raster_and_others_end_at_the_edge() -> None:
    index = neighbour_index(3, 4, [(0, -1), (0, -2), (1, 2), (2, -1)])
    assert index[4].tolist() == [3, 2, 2, 12]
    assert index[9].tolist() == [8, 7, 7, 0]
    assert index[6].tolist() == [5, 4, 12, 12]


@given(st.integers(1, 6), st.integers(1, 6), st.lists(st.tuples(st.integers(1, 3), st.integers(-3, 3)), max_size=4))
def test_a_neighbour_comes_before_its_token(height: int, width: int, more: list[tuple[int, int]]) -> None:
    index = neighbour_index(height, width, [*NEAREST, *more])
    for position, row in enumerate(index.tolist()):
        assert all(0 <= other < position or other == height * width for other in row)


@pytest.mark.parametrize("offset", [(0, 0), (0, 1), (-1, 0)])
def test_an_offset_to_what_is_not_known_is_refused(offset: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="before its token"):
        neighbour_index(3, 3, [offset])
