"""Gates: what they ask about, what they spend, and that they are functions of the history alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciar.device_client.gates import (
    AlwaysAsk,
    CalibratedThreshold,
    CertifiedBudget,
    FixedThreshold,
    Gate,
    LocalRunLimit,
    NeverAsk,
    RunningQuantile,
    Scores,
    bounded,
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


def ask_all(gate: Gate, values: list[float], start: int = 0) -> list[bool]:
    return [gate.ask(start + offset, scores_of(value)) for offset, value in enumerate(values)]


def test_always_and_never() -> None:
    assert all(ask_all(AlwaysAsk(), [0.0, 4.0]))
    assert not any(ask_all(NeverAsk(), [0.0, 4.0]))


def test_a_threshold_asks_above_it_and_when_the_score_is_not_a_number() -> None:
    assert ask_all(FixedThreshold(0.25), [0.9, 1.0, 1.1, math.nan]) == [False, False, True, True]


def test_a_calibrated_threshold_is_the_held_out_quantile_and_remembers_nothing() -> None:
    gate = CalibratedThreshold(0.25, [0.0, 0.25, 0.5, 0.75, 1.0])
    assert gate.threshold == 0.75
    values = [3.0, 3.1, 0.0, math.nan, 3.0]
    assert ask_all(gate, values) == [False, True, False, True, False]


@given(ambiguities)
def test_a_calibrated_share_of_0_never_asks_and_of_1_always(values: list[float]) -> None:
    assert not any(ask_all(CalibratedThreshold(0, PRIOR), values))
    assert all(ask_all(CalibratedThreshold(1, PRIOR), values))


@given(ambiguities)
def test_a_quantile_of_0_never_asks_and_of_1_always(values: list[float]) -> None:
    assert not any(ask_all(RunningQuantile(0, PRIOR), values))
    assert all(ask_all(RunningQuantile(1, PRIOR), values))


def test_a_quantile_begins_with_the_prior() -> None:
    assert ask_all(RunningQuantile(0.2, PRIOR, "ambiguity"), [0.7, 0.95]) == [False, True]


def test_a_quantile_asks_about_its_share_in_the_long_run_even_if_the_prior_is_wrong() -> None:
    values = np.random.default_rng(0).uniform(2, 3, 4000).tolist()
    share = np.mean(ask_all(RunningQuantile(0.3, PRIOR, "ambiguity"), values))
    assert share == pytest.approx(0.3, abs=0.03)  # four standard deviations of a binomial share


def test_a_quantile_that_cannot_tell_tokens_apart_asks() -> None:
    assert all(ask_all(RunningQuantile(0.2, [1.0, 1.0], "ambiguity"), [1.0] * 5))


@given(ambiguities, st.floats(0, 50))
def test_a_certified_budget_is_never_overspent(values: list[float], budget: float) -> None:
    gate = CertifiedBudget(budget, num_tokens=len(values))
    local = [value for value, asked in zip(values, ask_all(gate, values), strict=True) if not asked]
    assert gate.spent <= budget
    assert math.fsum(local) / 2 == pytest.approx(gate.spent)


def test_a_certified_budget_is_paced_and_carries_over() -> None:
    # 1 may be spent per position; 1.6 / 2 = 0.8 each, so 0.2 is left over every time.
    assert ask_all(CertifiedBudget(4, 4), [1.6, 1.6, 1.6, 3.2]) == [False, False, False, False]
    assert ask_all(CertifiedBudget(4, 4), [4.0, 4.0, 4.0, 4.0]) == [True, False, True, False]


@given(st.sampled_from(SPECS), ambiguities, ambiguities, st.data())
def test_a_rolled_back_gate_has_never_seen_what_was_discarded(
    manifest: Manifest, spec: str, kept: list[float], discarded: list[float], data: st.DataObject
) -> None:
    """The gate's answers are a pure function of the committed history."""
    gate, undisturbed = (bounded(make_gate(spec, manifest), 5) for _ in range(2))
    split = data.draw(st.integers(0, len(kept)))
    ask_all(gate, kept[:split])
    ask_all(gate, discarded, start=split)
    gate.rollback(split)
    assert ask_all(gate, kept[split:], start=split) == ask_all(undisturbed, kept)[split:]


@given(ambiguities, st.integers(1, 8))
def test_local_runs_are_limited(values: list[float], limit: int) -> None:
    asked = ask_all(LocalRunLimit(NeverAsk(), limit), values)
    assert asked == [(position + 1) % (limit + 1) == 0 for position in range(len(values))]


def test_a_gap_in_the_positions_begins_a_new_run() -> None:
    gate = LocalRunLimit(NeverAsk(), 2)
    assert ask_all(gate, [0.0, 0.0]) == [False, False]
    assert ask_all(gate, [0.0, 0.0, 0.0], start=5) == [False, False, True]


def test_a_gate_that_never_asks_is_left_alone() -> None:
    gate = NeverAsk()
    assert bounded(gate, 8) is gate


@pytest.mark.parametrize("spec", SPECS)
def test_a_gate_is_named_as_it_was_asked_for(manifest: Manifest, spec: str) -> None:
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
        ("", "known are calibrated, quantile"),
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
