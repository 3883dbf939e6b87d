"""Which samples are verified: none more than the first, all, and up to the first that differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciar.shared.verification import count_verified, total_variation


@pytest.mark.parametrize(
    ("samples", "guesses", "expected"),
    [
        ([3], [3], 1),
        ([3], [4], 1),
        ([1, 2, 3], [9, 2, 3], 1),
        ([1, 2, 3], [1, 2, 3], 3),
        ([1, 2, 3, 4], [1, 2, 9, 4], 3),
    ],
)
def test_up_to_and_with_the_first_that_differs(samples: list[int], guesses: list[int], expected: int) -> None:
    assert count_verified(np.array(samples), np.array(guesses)) == expected


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1))
def test_all_before_the_last_verified_one_hold(pairs: list[tuple[int, int]]) -> None:
    samples, guesses = map(np.array, zip(*pairs, strict=True))
    count = count_verified(samples, guesses)
    assert (samples[: count - 1] == guesses[: count - 1]).all()
    assert count == len(samples) or samples[count - 1] != guesses[count - 1]


def test_total_variation_is_half_the_distance() -> None:
    assert total_variation(np.array([1.0, 0.0]), np.array([0.25, 0.75])) == 0.75
