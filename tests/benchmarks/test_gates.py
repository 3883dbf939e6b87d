"""Baseline gates: what each doubt says of hand-made laws, that shares hold, and that rollbacks leave no trace."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ciar.benchmarks.gates import (
    Doubt,
    DoubtThreshold,
    Recorder,
    entropy,
    margin,
    max_probability,
    outside_set,
    random_doubt,
)
from ciar.device_client import Scores, VerifyAll

UNIFORM = np.linspace(0, 1, 101).tolist()
DOUBTS = {
    "entropy": entropy,
    "max": max_probability,
    "margin": margin,
    "set": outside_set(2),
    "random": random_doubt(3, 3000),
}

laws = st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=8)


def scores_of(p: list[float] | NDArray[np.float64]) -> Scores:
    return Scores(0.0, 0.0, 0.0, np.log(np.asarray(p), dtype=np.float64).astype(np.float32))


def test_doubts_of_a_law_known_by_hand() -> None:
    scores = scores_of([0.5, 0.25, 0.125, 0.125])
    assert entropy(0, scores) == pytest.approx(1.75 * math.log(2), abs=1e-6)
    assert max_probability(0, scores) == pytest.approx(0.5, abs=1e-6)
    assert margin(0, scores) == pytest.approx(0.75, abs=1e-6)
    assert outside_set(2)(0, scores) == pytest.approx(0.25, abs=1e-6)
    assert outside_set(4)(0, scores) == pytest.approx(0, abs=1e-6)
    assert outside_set(9)(0, scores) == pytest.approx(0, abs=1e-6)


@given(laws)
def test_doubts_lie_between_certainty_and_the_flat_law(logits: list[float]) -> None:
    scores = Scores(0.0, 0.0, 0.0, np.array(logits, np.float32))
    count = len(logits)
    for doubt, flat in (
        (entropy, math.log(count)),
        (max_probability, 1 - 1 / count),
        (margin, 1.0),
        (outside_set(2), 1 - 2 / count),
    ):
        assert -1e-9 <= doubt(0, scores) <= flat + 1e-9
    assert outside_set(1)(0, scores) == pytest.approx(max_probability(0, scores))


def test_a_set_of_one_and_a_law_without_equal_are_ordered_as_they_should_be() -> None:
    sure, torn, flat = scores_of([0.97, 0.01, 0.01, 0.01]), scores_of([0.48, 0.48, 0.02, 0.02]), scores_of([0.25] * 4)
    for doubt in (entropy, max_probability, outside_set(2)):
        assert doubt(0, sure) < doubt(0, torn) < doubt(0, flat)
    assert margin(0, sure) < margin(0, torn) == pytest.approx(margin(0, flat))


def test_random_doubt_is_a_function_of_seed_and_position_alone() -> None:
    values = [random_doubt(5, 200)(position, scores_of([0.5, 0.5])) for position in range(200)]
    assert values == [random_doubt(5, 200)(position, scores_of([0.9, 0.1])) for position in range(200)]
    assert values != [random_doubt(6, 200)(position, scores_of([0.5, 0.5])) for position in range(200)]


@pytest.mark.parametrize("seed", range(4))
def test_random_doubt_gives_every_picture_its_share_anywhere_in_it(seed: int) -> None:
    gate = DoubtThreshold("random", random_doubt(seed, 256), 0.25, UNIFORM)
    asked = [position for position in range(256) if gate.must_verify(position, scores_of([0.5, 0.5]))]
    assert len(asked) == 64
    assert np.mean(asked) == pytest.approx(127.5, abs=4 * 8.0)  # four standard deviations of the mean


@pytest.mark.parametrize("doubt", DOUBTS.values(), ids=DOUBTS)
def test_a_gate_asks_about_its_share(doubt: Doubt) -> None:
    rng = np.random.default_rng(0)
    scores = [scores_of(rng.dirichlet(np.full(8, 0.5)) + 1e-9) for _ in range(3000)]
    seen = sorted(doubt(position, row) for position, row in enumerate(scores[:500]))
    gate = DoubtThreshold("row", doubt, 0.2, seen)
    asked = np.array([gate.must_verify(position, row) for position, row in enumerate(scores)])
    assert asked.mean() == pytest.approx(0.2, abs=0.03)  # four standard deviations of a binomial share
    values = np.array([doubt(position, row) for position, row in enumerate(scores)])
    assert values[asked].min() > np.quantile(values, 0.5)


@given(
    kept=st.lists(st.floats(0, 1), min_size=1, max_size=30),
    dropped=st.lists(st.floats(0, 1), max_size=30),
    data=st.data(),
)
def test_a_rolled_back_gate_has_never_seen_what_was_discarded(
    kept: list[float], dropped: list[float], data: st.DataObject
) -> None:
    def given_doubt(_position: int, scores: Scores) -> float:
        return scores.ambiguity

    gate, undisturbed = (DoubtThreshold("row", given_doubt, 0.3, UNIFORM) for _ in range(2))
    recorder = Recorder(gate, {"given": given_doubt})
    split = data.draw(st.integers(0, len(kept)))
    for position, value in enumerate([*kept[:split], *dropped]):
        recorder.must_verify(position, Scores(value, 0.0, 0.0))
    recorder.rollback(split)
    rest = [recorder.must_verify(split + i, Scores(value, 0.0, 0.0)) for i, value in enumerate(kept[split:])]
    assert rest == [undisturbed.must_verify(i, Scores(value, 0.0, 0.0)) for i, value in enumerate(kept)][split:]
    assert recorder.values("given") == kept


def test_a_recorder_answers_as_its_gate_does() -> None:
    recorder = Recorder(VerifyAll(), {})
    assert recorder.name == "always"
    assert recorder.must_verify(0, Scores(0.0, 0.0, 0.0))
