"""Gates: what they have verified, what they spend, and that they are functions of the history alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciar.device_client.gates import (
    CalibratedThreshold,
    CertifiedBudget,
    FixedThreshold,
    Gate,
    NearbyThreshold,
    RunningQuantile,
    Scores,
    VerifyAll,
    VerifyNone,
    make_gate,
)
from ciar.shared.bundle import Manifest
from ciar.shared.errors import InvalidRequest

PRIOR = np.linspace(0, 1, 101).tolist()
SPECS = [
    "always",
    "never",
    "threshold:0.3",
    "threshold:1:ambiguity",
    "calibrated:0.2",
    "calibrated:0.5:ambiguity",
    "quantile:0.2",
    "quantile:0.5:ambiguity",
    "certified:3",
]

ambiguities = st.lists(st.floats(0, 4, allow_nan=False), min_size=1, max_size=60)


def scores_of(ambiguity: float) -> Scores:
    return Scores(ambiguity, 0.25, ambiguity * 0.25)


def verify_all(gate: Gate, values: list[float], start: int = 0) -> list[bool]:
    return [gate.must_verify(start + offset, scores_of(value)) for offset, value in enumerate(values)]


def test_always_and_never() -> None:
    assert all(verify_all(VerifyAll(), [0.0, 4.0]))
    assert not any(verify_all(VerifyNone(), [0.0, 4.0]))


def test_a_threshold_verifies_above_it_and_when_the_score_is_not_a_number() -> None:
    assert verify_all(FixedThreshold(0.25), [0.9, 1.0, 1.1, math.nan]) == [False, False, True, True]


def test_a_calibrated_threshold_is_the_held_out_quantile_and_remembers_nothing() -> None:
    gate = CalibratedThreshold(0.25, [0.0, 0.25, 0.5, 0.75, 1.0])
    assert gate.threshold == 0.75
    values = [3.0, 3.1, 0.0, math.nan, 3.0]
    assert verify_all(gate, values) == [False, True, False, True, False]


@given(ambiguities)
def test_a_calibrated_share_of_0_verifies_nothing_and_of_1_everything(values: list[float]) -> None:
    assert not any(verify_all(CalibratedThreshold(0, PRIOR), values))
    assert all(verify_all(CalibratedThreshold(1, PRIOR), values))


@given(ambiguities)
def test_a_quantile_of_0_verifies_nothing_and_of_1_everything(values: list[float]) -> None:
    assert not any(verify_all(RunningQuantile(0, PRIOR), values))
    assert all(verify_all(RunningQuantile(1, PRIOR), values))


def test_a_quantile_begins_with_the_prior() -> None:
    assert verify_all(RunningQuantile(0.2, PRIOR, "ambiguity"), [0.7, 0.95]) == [False, True]


def test_a_quantile_verifies_its_share_in_the_long_run_even_if_the_prior_is_wrong() -> None:
    values = np.random.default_rng(0).uniform(2, 3, 4000).tolist()
    share = np.mean(verify_all(RunningQuantile(0.3, PRIOR, "ambiguity"), values))
    assert share == pytest.approx(0.3, abs=0.03)  # four standard deviations of a binomial share


def test_a_quantile_that_cannot_tell_tokens_apart_verifies() -> None:
    assert all(verify_all(RunningQuantile(0.2, [1.0, 1.0], "ambiguity"), [1.0] * 5))


@given(ambiguities, st.floats(0, 50))
def test_a_certified_budget_is_never_overspent(values: list[float], budget: float) -> None:
    gate = CertifiedBudget(budget, num_tokens=len(values))
    local = [value for value, marked in zip(values, verify_all(gate, values), strict=True) if not marked]
    assert gate.spent <= budget
    assert math.fsum(local) / 2 == pytest.approx(gate.spent)


def test_a_certified_budget_is_paced_and_carries_over() -> None:
    # 1 may be spent per position; 1.6 / 2 = 0.8 each, so 0.2 is left over every time.
    assert verify_all(CertifiedBudget(4, 4), [1.6, 1.6, 1.6, 3.2]) == [False, False, False, False]
    assert verify_all(CertifiedBudget(4, 4), [4.0, 4.0, 4.0, 4.0]) == [True, False, True, False]


@given(st.sampled_from(SPECS), ambiguities, ambiguities, st.data())
def test_a_rolled_back_gate_has_never_seen_what_was_discarded(
    manifest: Manifest, spec: str, kept: list[float], discarded: list[float], data: st.DataObject
) -> None:
    """The gate's answers are a pure function of the committed history."""
    gate, undisturbed = (make_gate(spec, manifest) for _ in range(2))
    split = data.draw(st.integers(0, len(kept)))
    verify_all(gate, kept[:split])
    verify_all(gate, discarded, start=split)
    gate.rollback(split)
    assert verify_all(gate, kept[split:], start=split) == verify_all(undisturbed, kept)[split:]


@pytest.mark.parametrize("spec", SPECS)
def test_a_gate_is_named_as_it_was_made(manifest: Manifest, spec: str) -> None:
    assert make_gate(spec, manifest).name == spec


@pytest.mark.parametrize(
    ("spec", "name"), [("Quantile", "quantile:0.3"), ("paper", "quantile:0.3"), ("calibrated", "calibrated:0.3")]
)
def test_a_name_alone_takes_the_pairs_share(spec: str, name: str, manifest: Manifest) -> None:
    assert make_gate(spec, manifest).name == name


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("quantil:0.2", "did you mean 'quantile'"),
        ("", "known are calibrated, nearby"),
        ("calibrated:-1", "in [0, 1] (got -1)"),
        ("quantile:2", "in [0, 1] (got 2)"),
        ("quantile:nan", "in [0, 1] (got nan)"),
        ("quantile:0.2:disparity", "'uncertainty' or 'ambiguity'"),
        ("threshold", "needs a number, such as 'threshold:0.3'"),
        ("threshold:-1", "at least 0"),
        ("threshold:inf", "finite"),
        ("certified:x", "not a number"),
        ("certified:1:2", "at most 1"),
        ("always:1", "at most 0"),
    ],
)
def test_nonsense_is_a_sentence(manifest: Manifest, spec: str, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^gate: ") as caught:
        make_gate(spec, manifest)
    assert sentence in str(caught.value)


def nearby(values: dict[int, float], width: int = 4) -> list[int]:
    """Positions verified of 12; U is 0.5 but for the given ones."""
    gate = NearbyThreshold(0.1, 0.5, np.linspace(0, 1, 11).tolist(), width)  # above 0.9; beside verified ones above 0.5
    scores = [Scores(0.0, 0.0, values.get(position, 0.5)) for position in range(12)]
    return [position for position, score in enumerate(scores) if gate.must_verify(position, score)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        ({5: 0.95}, [5]),
        ({6: 0.7}, []),
        ({5: 0.95, 6: 0.7}, [5, 6]),  # left
        ({1: 0.95, 5: 0.7}, [1, 5]),  # above
        ({0: 0.95, 5: 0.7}, [0, 5]),  # above and left
        ({2: 0.95, 5: 0.7}, [2, 5]),  # above and right
        ({3: 0.95, 4: 0.7}, [3]),  # the next row begins: no neighbour
        ({7: 0.95, 8: 0.7}, [7]),
        ({0: 0.95, 7: 0.7}, [0]),  # the other edge
        ({0: 0.95, 1: 0.7, 2: 0.7, 6: 0.7}, [0, 1, 2, 6]),  # it goes on
    ],
)
def test_beside_verified_tokens_less_is_enough(values: dict[int, float], expected: list[int]) -> None:
    assert nearby(values) == expected


def test_nearby_begins_behind_what_the_cloud_generated() -> None:
    gate = NearbyThreshold(0.1, 0.5, np.linspace(0, 1, 11).tolist(), 4)
    assert not gate.must_verify(5, Scores(0.0, 0.0, 0.7))
    assert gate.must_verify(6, Scores(0.0, 0.0, 0.95))
