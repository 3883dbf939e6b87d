"""The cost of a row, learnt from passes."""

from __future__ import annotations

import numpy as np
import pytest

from ciar.cloud_server.pass_cost import DEFAULT_ROW_COST, MAX_ROWS, PassCost


def learnt(fixed: float, slope: float, rows: list[int], noise: float = 0.0) -> PassCost:
    rng, cost = np.random.default_rng(0), PassCost()
    for num_rows in rows:
        cost.add(num_rows, (fixed + slope * num_rows) * (1 + noise * rng.standard_normal()))
    return cost


@pytest.mark.parametrize("row_cost", [0.0, 0.01, 0.3, 1.0])
def test_fixed_and_slope_are_told_apart(row_cost: float) -> None:
    rows = [1, 1, 1, 5, 9, 1, 20, 3]
    assert learnt(0.2, 0.2 * row_cost, rows).row_cost == pytest.approx(row_cost, abs=1e-9)
    assert learnt(0.2, 0.2 * row_cost, 50 * rows, noise=0.1).row_cost == pytest.approx(row_cost, abs=0.05)


def test_what_cannot_be_told_is_the_default() -> None:
    assert PassCost().row_cost == DEFAULT_ROW_COST
    assert learnt(1.0, 5.0, [1] * 100).row_cost == DEFAULT_ROW_COST


def test_another_machine_load_is_learnt_anew() -> None:
    cost = learnt(1.0, 0.0, [1, 4, 8] * 100)
    for num_rows in [1, 4, 8] * 1000:
        cost.add(num_rows, 1.0 + 0.5 * num_rows)
    assert cost.row_cost == pytest.approx(0.5, abs=0.01)


def test_it_stays_in_bounds_and_leaves_long_passes_out() -> None:
    assert learnt(-1.0, 1.0, [2, 4, 8]).row_cost == 1.0
    assert learnt(9.0, -1.0, [2, 4, 8]).row_cost == 0.0
    cost = learnt(1.0, 0.1, [1, 4, 8])
    cost.add(MAX_ROWS + 1, 1e6)
    assert cost.row_cost == pytest.approx(0.1)
