"""How many positions a pass verifies: the closed form against a simulation, its limits, and what is learnt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciar.cloud_server.window import MAX_REFRESHES, Origin, WindowPolicy, advance, best_window

NUM_RATES = MAX_REFRESHES + 1
RATES = st.lists(st.floats(0.05, 0.98), min_size=2, max_size=2).map(
    lambda ends: np.linspace(min(ends), max(ends), NUM_RATES)
)


def simulated_advance(rates: np.ndarray, length: int, num_passes: int = 4000) -> float:
    """Positions a pass, of windows whose guesses hold with these chances by the number of their refreshes."""
    rng = np.random.default_rng(0)
    refreshes = np.zeros(length, int)
    moved = 0
    for _ in range(num_passes):
        holds = rng.uniform(size=length) < rates[np.minimum(refreshes, len(rates) - 1)]
        verified = length if holds.all() else int(holds.argmin()) + 1
        moved += verified
        refreshes = np.concatenate([refreshes[verified:] + 1, np.zeros(verified, int)])
    return moved / num_passes


@pytest.mark.parametrize("length", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("ends", [(0.3, 0.6), (0.6, 0.9), (0.85, 0.95), (0.5, 0.5)])
def test_the_closed_form_is_close_to_a_simulation(length: int, ends: tuple[float, float]) -> None:
    rates = np.linspace(*ends, NUM_RATES)
    assert advance(rates, length) == pytest.approx(simulated_advance(rates, length), rel=0.25)


@given(RATES, st.floats(0.001, 1))
def test_a_dearer_row_never_widens_the_window(rates: np.ndarray, row_cost: float) -> None:
    assert best_window(rates, 2 * row_cost) <= best_window(rates, row_cost)


@given(RATES)
def test_a_window_moves_on_by_at_least_one_and_at_most_itself(rates: np.ndarray) -> None:
    for length in (1, 3, 10, 64):
        assert 1 <= advance(rates, length) <= length + 1e-9


def test_guesses_that_always_hold_widen_it_and_those_that_never_do_close_it() -> None:
    assert best_window(np.ones(NUM_RATES), 0.001) == 64
    assert best_window(np.full(NUM_RATES, 0.001), 0.01) == 1


@pytest.mark.parametrize("held", [0.3, 0.9])
def test_the_policy_learns_what_holds(held: float) -> None:
    policy, rng = WindowPolicy(), np.random.default_rng(1)
    for _ in range(600):
        ages = np.minimum(np.arange(8)[::-1], MAX_REFRESHES).astype(np.int8)
        fate = rng.uniform(size=8) < held
        count = 8 if fate.all() else int(fate.argmin()) + 1
        policy.observe(np.zeros(count, np.int8), ages[:count], fate[:count])
    seen = policy.hold_rates(Origin.NEIGHBOUR)[3:]
    np.testing.assert_allclose(seen, held, atol=0.2)
    assert policy.choose(Origin.NEIGHBOUR, 0.05) == pytest.approx(best_window(np.full(NUM_RATES, held), 0.05), rel=0.7)
