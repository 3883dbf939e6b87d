"""The gate as a selective predictor, on tables written by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ciar.benchmarks.evaluation.selective import (
    ORACLE,
    by_group,
    estimate,
    judge,
    positions,
)
from tests.support.tables import some_scores, table


def test_the_interval_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3
    assert found.high - found.low == pytest.approx(2 * 2.776 * math.sqrt(2.5) / math.sqrt(5))
    assert math.isnan(estimate([1.0]).half_width)


def test_groups_count_alike_however_many_pictures_they_have() -> None:
    found = by_group(np.array([1.0, 1.0, 0.0]), np.array([4, 4, 9]))
    assert found.groups == (1.0, 0.0)
    assert found.mean == 0.5


def test_a_gate_that_is_the_oracle_goes_all_the_way_and_a_useless_one_none() -> None:
    tv = np.array([[0.0, 0.1, 0.2, 0.9], [0.1, 0.2, 0.3, 0.8]])
    agree = tv < 0.5
    perfect = judge(table(tv, tv >= 0.5, some_scores(tv), [0, 1], agree)).gate
    assert perfect is not None
    assert perfect.local_share.mean == 0.75
    assert perfect.share_of_way.groups == pytest.approx((1, 1))
    assert perfect.agreement_over_oracle.mean == 1
    assert perfect.tv.groups == pytest.approx((0.1, 0.2))
    flat = np.array([[0.0, 0.4, 0.0, 0.4], [0.0, 0.4, 0.0, 0.4]])
    useless = judge(table(flat, np.array([[True, True, False, False]] * 2), some_scores(flat), [0, 1])).gate
    assert useless is not None
    assert useless.share_of_way.groups == pytest.approx((0, 0), abs=1e-6)
    assert useless.oracle_tv.mean == 0


def test_a_gate_that_asks_about_everything_or_nothing_has_no_row() -> None:
    tv = np.array([[0.1, 0.2]])
    for asked in (np.ones((1, 2), np.bool_), np.zeros((1, 2), np.bool_)):
        assert judge(table(tv, asked, some_scores(tv), [0])).gate is None


def test_rivals_are_compared_on_the_same_tokens() -> None:
    tv = np.array([[0.0, 0.5, 1.0], [0.0, 0.4, 0.8]])
    backwards = -tv
    found = judge(table(tv, tv > 0.6, some_scores(tv, entropy=backwards), [0, 1]))
    curve = [(1 + 0.75 + 0.5) / 3 - (0 + 0.25 + 0.5) / 3, (0.8 + 0.6 + 0.4) / 3 - (0 + 0.2 + 0.4) / 3]
    assert found.rival_aurc["entropy"].groups == pytest.approx([-value for value in curve])
    assert found.rival_aurc["max probability"].mean == 0


def test_the_bound_is_summed_over_what_was_accepted() -> None:
    tv = np.array([[0.1, 0.3, 0.9]])
    asked = np.array([[False, False, True]])
    found = judge(table(tv, asked, some_scores(tv, ambiguity=np.array([[0.4, 0.5, 1.0]])), [0])).bound
    assert found.budget.mean == pytest.approx(0.45)
    assert found.distance.mean == pytest.approx(0.4)
    assert found.covered.mean == pytest.approx(1 / 3)
    assert found.covered_accepted.mean == pytest.approx(1 / 2)
    assert found.pictures_covered.mean == 1


def test_positions_leave_the_prefix_out_and_bring_the_oracle() -> None:
    tv = np.array([[0.1, 0.2], [0.3, 0.4]])
    found = positions(table(tv, tv > 1, some_scores(tv), [0, 1]), group=1)
    assert found.tv.tolist() == pytest.approx([0.3, 0.4])
    assert found.scores[ORACLE].tolist() == pytest.approx([0.3, 0.4])
    assert found.agree.tolist() == [1, 1]
