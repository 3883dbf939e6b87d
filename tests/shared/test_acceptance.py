"""The acceptance rule: never, always and sometimes accepts, and the output is the cloud's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.acceptance import Outcome, coupled, total_variation, verify
from shared.coupling import Draw, sample
from shared.types import Sampling

# Three positions, vocabulary of 4. Greedy takes 2, 0, 3.
TABLE = np.array([[0, 1, 5, 2], [4, 0, 1, 2], [0, 3, 1, 9]], np.float32)
GREEDY = coupled(Sampling(temperature=0))


def outcome(drafted: list[int], asked: list[int] | None = None) -> Outcome:
    """Verify drafts of positions 10, 11, 12 against TABLE."""
    positions = [10, 11, 12] if asked is None else asked
    return verify(GREEDY, lambda t: TABLE[t - 10], positions, lambda t: drafted[t - 10])


def test_always_accepts_what_the_cloud_would_take() -> None:
    assert outcome([2, 0, 3]) == Outcome(None, None, ())


def test_never_accepts_what_the_cloud_would_not_take() -> None:
    assert outcome([1, 1, 1]) == Outcome(10, 2, ())


@pytest.mark.parametrize(("drafted", "position", "token"), [([2, 1, 3], 11, 0), ([2, 0, 0], 12, 3), ([2, 3, 0], 11, 0)])
def test_sometimes_accepts_up_to_the_first_difference(drafted: list[int], position: int, token: int) -> None:
    assert outcome(drafted) == Outcome(position, token, ())


def test_looks_only_at_asked_positions() -> None:
    seen: list[int] = []

    def logits_at(position: int) -> np.ndarray:
        seen.append(position)
        return TABLE[position - 10]

    assert verify(GREEDY, logits_at, [11], lambda t: 0).corrected_at is None
    assert seen == [11]


def test_stops_at_the_correction() -> None:
    seen: list[int] = []

    def logits_at(position: int) -> np.ndarray:
        seen.append(position)
        return TABLE[position - 10]

    assert verify(GREEDY, logits_at, [10, 11, 12], lambda t: 0).corrected_at == 10
    assert seen == [10]


def test_nothing_asked_nothing_corrected() -> None:
    assert outcome([1, 1, 1], asked=[]) == Outcome(None, None, ())


def test_near_ties_are_told_up_to_and_with_the_correction() -> None:
    tied = np.array([[1, 1, 0, 0], [0, 5, 0, 0], [0, 0, 2, 2.0002], [3, 3, 0, 0]], np.float32)
    drafted = [0, 1, 2, 0]
    assert verify(GREEDY, lambda t: tied[t], range(4), lambda t: drafted[t]) == Outcome(2, 3, (0, 2))


@given(
    seed=st.integers(0, 2**64 - 1),
    drafted=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_k=st.integers(0, 5),
    top_p=st.floats(0.1, 1.0),
)
def test_output_is_the_clouds_own_draw_whatever_is_drafted(
    seed: int, drafted: list[int], temperature: float, top_k: int, top_p: float
) -> None:
    logits = np.random.default_rng(0).normal(scale=2, size=(6, 4)).astype(np.float32)
    sampling = Sampling(seed=seed, temperature=temperature, top_k=top_k, top_p=top_p)
    own = [
        sample(logits[t], seed=seed, position=t, temperature=temperature, top_k=top_k, top_p=top_p) for t in range(6)
    ]
    tokens = list(drafted)
    start = 0
    while start < 6:
        verdict = verify(coupled(sampling), lambda t: logits[t], range(start, 6), lambda t: tokens[t])
        if verdict.corrected_at is None:
            break
        assert tokens[verdict.corrected_at] != verdict.token
        tokens[verdict.corrected_at] = verdict.token  # type: ignore[call-overload]
        start = verdict.corrected_at + 1
    assert tokens == own


def test_any_rule_can_stand_in() -> None:
    """A lenient rule keeps drafted tokens: the loop asks the rule, not the sampler."""
    assert (
        verify(lambda _l, _t, drafted: Draw(drafted, 1.0), lambda t: TABLE[0], [0, 1], lambda t: 1).corrected_at is None
    )


def test_total_variation() -> None:
    p, q = np.array([[0.5, 0.5, 0.0], [1.0, 0, 0]]), np.array([[0.25, 0.25, 0.5], [0, 0, 1.0]])
    np.testing.assert_allclose(total_variation(p, q), [0.5, 1.0])
    np.testing.assert_allclose(total_variation(p, p), [0.0, 0.0])
