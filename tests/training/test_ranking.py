"""Scores as rankings, on numbers written by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciar.training.ranking import accepted_mean, aurc, auroc, risk_curve


def test_the_risk_curve_is_the_mean_risk_of_the_least_doubtful() -> None:
    score, risk = np.array([3.0, 1.0, 2.0]), np.array([0.9, 0.0, 0.3])
    assert risk_curve(score, risk).tolist() == pytest.approx([0, 0.15, 0.4])
    assert aurc(score, risk) == pytest.approx(0.55 / 3)


def test_ties_count_with_their_mean() -> None:
    risk = np.array([0.0, 1.0, 0.5, 0.5])
    assert risk_curve(np.zeros(4), risk).tolist() == [0.5] * 4
    assert accepted_mean(np.zeros(4), risk, 0.25) == 0.5


def test_auroc_of_a_perfect_a_useless_and_a_wrong_score() -> None:
    positive = np.array([False, False, True, True])
    assert auroc(np.array([1.0, 2, 3, 4]), positive) == 1
    assert auroc(np.zeros(4), positive) == 0.5
    assert auroc(np.array([4.0, 3, 2, 1]), positive) == 0
    assert math.isnan(auroc(np.zeros(4), np.zeros(4, bool)))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_no_score_beats_the_oracle_and_all_end_at_the_mean(pairs: list[tuple[float, float]]) -> None:
    risk, score = np.array(pairs).T
    best, other = risk_curve(risk, risk), risk_curve(score, risk)
    assert (best <= other + 1e-12).all()
    assert best[-1] == pytest.approx(other[-1]) == pytest.approx(risk.mean())
