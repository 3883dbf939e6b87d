"""The coupled sampler: a stream that never changes, the right distribution, and the promise of common noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from ciar.shared import sampling
from ciar.shared.sampling import NEAR_TIE_TOLERANCE, Noise, gumbel, keep_likely, sample_rows
from ciar.shared.sampling import sample as sample_token
from ciar.shared.types import Sampling

GOLDEN = {
    (0, 0): [3.3421805, 4.4555497, 0.0548557, 1.2856264],
    (1, 0): [0.4886145, 1.0167047, -0.267998, -0.6358085],
    (0, 1): [-1.3066847, -0.5179255, 1.0414639, -0.3304788],
    (123456789, 255): [1.5279222, 2.1363249, 1.3416187, 0.6406766],
    (2**64 - 1, 1023): [0.3921048, -0.7530478, 0.6331756, -0.6945896],
}
"""First values of the noise by (seed, position). They are part of what a seed means: never edit them."""


def sample(
    logits: NDArray[np.float32],
    *,
    seed: int,
    position: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> int:
    """The token of `sample`, with the sampling values spelled out."""
    values = Sampling(seed=seed, temperature=temperature, top_k=top_k, top_p=top_p)
    return sample_token(logits, position, values).token


LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, 1.5, -3.0], np.float32)
NUM_DRAWS = 20_000
ALPHA = 1e-4
"""Level of every chi-square test here; with fixed seeds a right sampler passes for ever."""


def reference_distribution(
    logits: NDArray[np.float32], temperature: float, top_k: int, top_p: float
) -> NDArray[np.float64]:
    """The filtered softmax, token by token and without any trick."""
    weights = [float(np.exp(float(logit) / temperature)) for logit in logits]
    ranked = sorted(range(len(weights)), key=lambda token: -weights[token])
    if top_k:
        smallest = weights[ranked[min(top_k, len(ranked)) - 1]]
        ranked = [token for token in ranked if weights[token] >= smallest]
    total = sum(weights[token] for token in ranked)
    kept, mass = [], 0.0
    for token in ranked:
        if kept and mass >= top_p * total:
            break
        kept.append(token)
        mass += weights[token]
    return np.array([weights[token] / mass if token in kept else 0.0 for token in range(len(weights))])


def chi_square_p(counts: NDArray[np.int64], expected: NDArray[np.float64]) -> float:
    """p-value of the counts under the distribution; 0 if something impossible was drawn."""
    possible = expected > 0
    if counts[~possible].any():
        return 0.0
    if possible.sum() == 1:
        return 1.0
    return float(stats.chisquare(counts[possible], expected[possible] * counts.sum()).pvalue)


# ---- the stream ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", list(GOLDEN))
def test_the_stream_never_changes(address: tuple[int, int]) -> None:
    np.testing.assert_allclose(gumbel(*address, vocab_size=4), GOLDEN[address], rtol=1e-6)


def test_noise_is_addressed_by_seed_and_position_alone() -> None:
    forwards = [gumbel(7, position, 50) for position in range(5)]
    backwards = [gumbel(7, position, 50) for position in reversed(range(5))]
    np.testing.assert_array_equal(forwards, backwards[::-1])


@pytest.mark.parametrize("vocab_size", [2, 3, 64, 101])
def test_a_smaller_vocabulary_sees_the_head_of_the_same_noise(vocab_size: int) -> None:
    np.testing.assert_array_equal(gumbel(3, 4, vocab_size), gumbel(3, 4, 200)[:vocab_size])


def test_neighbouring_addresses_are_unrelated() -> None:
    noise = np.stack([gumbel(seed, position, 4000) for seed in range(4) for position in range(4)])
    correlation = np.corrcoef(noise) - np.eye(16)
    assert np.abs(correlation).max() < 0.08  # five standard deviations of independent noise


def test_noise_is_standard_gumbel() -> None:
    noise = np.concatenate([gumbel(1, position, 2048) for position in range(20)])
    assert np.isfinite(noise).all()
    # 40 960 draws: a shift of 0.02 or a scale off by 2 % is found with power above 0.9.
    assert stats.kstest(noise, stats.gumbel_r.cdf).pvalue > ALPHA


def test_kept_noise_is_the_noise() -> None:
    noise = Noise(3, 50)
    noise.prepare(2, 5)
    for position in (0, 3, 4, 3, 9):
        np.testing.assert_array_equal(noise.at(position), gumbel(3, position, 50))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions whose noise was computed, in order; noise is kept for four positions of 50 values."""
    positions: list[int] = []

    def counting(seed: int, position: int, vocab_size: int) -> NDArray[np.float32]:
        positions.append(position)
        return gumbel(seed, position, vocab_size)

    monkeypatch.setattr(sampling, "gumbel", counting)
    monkeypatch.setattr(sampling, "MAX_KEPT_VALUES", 200)
    return positions


def test_what_is_prepared_or_drawn_again_is_not_computed_again(computed: list[int]) -> None:
    noise = Noise(3, 50)
    noise.prepare(2, 4)
    for position in (2, 3, 4, 3, 4):
        sample_token(np.zeros(50, np.float32), position, Sampling(seed=3), noise)
    assert computed == [2, 3, 4]


def test_kept_noise_is_bounded(computed: list[int]) -> None:
    noise = Noise(3, 50)
    noise.prepare(0, 256)
    assert computed == [0, 1, 2, 3]
    noise.at(4)
    noise.at(3)
    noise.at(0)  # went when 4 came
    assert computed == [0, 1, 2, 3, 4, 0]


def test_one_position_is_kept_of_the_largest_vocabulary(computed: list[int]) -> None:
    noise = Noise(3, 300)
    noise.prepare(0, 256)
    noise.at(0)
    assert computed == [0]


# ---- the law -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        (1.0, 0, 1.0),
        (0.7, 0, 1.0),
        (1.6, 0, 1.0),
        (1.0, 3, 1.0),
        (1.0, 1, 1.0),
        (1.0, 100, 1.0),
        (1.0, 0, 0.8),
        (1.0, 0, 1e-6),
        (1.3, 5, 0.7),
    ],
)
def test_sample_draws_from_the_filtered_softmax(temperature: float, top_k: int, top_p: float) -> None:
    """Power: moving 2 % of probability between two tokens of the full law is found with probability above 0.95
    (20 000 draws: non-centrality at least 20 000 · 0.02² · (1/0.4 + 1/0.25) ≈ 52 at 7 degrees of freedom)."""
    counts = np.zeros(LOGITS.size, np.int64)
    for position in range(NUM_DRAWS):
        counts[sample(LOGITS, seed=42, position=position, temperature=temperature, top_k=top_k, top_p=top_p)] += 1
    assert chi_square_p(counts, reference_distribution(LOGITS, temperature, top_k, top_p)) > ALPHA


def test_the_chi_square_test_has_the_power_it_states() -> None:
    expected = reference_distribution(LOGITS, 1.0, 0, 1.0)
    moved = expected.copy()
    moved[0] -= 0.02
    moved[6] += 0.02
    rng = np.random.default_rng(0)
    rejected = [chi_square_p(rng.multinomial(NUM_DRAWS, moved), expected) <= ALPHA for _ in range(200)]
    assert np.mean(rejected) > 0.95


def test_seeds_too_draw_from_the_law() -> None:
    counts = np.zeros(LOGITS.size, np.int64)
    for seed in range(NUM_DRAWS):
        counts[sample(LOGITS, seed=seed, position=3)] += 1
    assert chi_square_p(counts, reference_distribution(LOGITS, 1.0, 0, 1.0)) > ALPHA


@given(
    st.lists(st.integers(-20, 20), min_size=2, max_size=12, unique=True),
    st.integers(0, 14),
    st.floats(0.05, 1.0),
)
def test_keep_likely_keeps_what_the_reference_keeps(values: list[int], top_k: int, top_p: float) -> None:
    logits = np.array(values, np.float32) / 4
    law = reference_distribution(logits, 1.0, top_k, top_p)
    kept = keep_likely(logits, top_k, top_p)
    np.testing.assert_array_equal(np.isfinite(kept), law > 0)
    np.testing.assert_array_equal(kept[law > 0], logits[law > 0])


def test_top_k_keeps_ties_with_the_kth() -> None:
    kept = keep_likely(np.array([3, 1, 2, 2, 0], np.float32), top_k=2, top_p=1.0)
    assert np.isfinite(kept).tolist() == [True, False, True, True, False]


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125], np.float32))
    assert np.isfinite(keep_likely(logits, 0, 0.74)).tolist() == [True, True, False, False]
    assert np.isfinite(keep_likely(logits, 0, 0.76)).tolist() == [True, True, True, False]


# ---- the coupling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [0.1, 0.5, 1.5])
def test_equal_noise_makes_near_laws_agree(distance: float) -> None:
    """Acceptance is at least (1 − TV)/(1 + TV) (arXiv 2408.07978), up to 4 standard errors of 6 000 draws."""
    rng = np.random.default_rng(5)
    num_draws = 6000
    p = rng.normal(size=32).astype(np.float32)
    q = p + distance * rng.normal(size=32).astype(np.float32)
    law_p, law_q = reference_distribution(p, 1.0, 0, 1.0), reference_distribution(q, 1.0, 0, 1.0)
    tv = 0.5 * np.abs(law_p - law_q).sum()
    agreed = np.mean([sample(p, seed=9, position=t) == sample(q, seed=9, position=t) for t in range(num_draws)])
    promise = (1 - tv) / (1 + tv)
    assert agreed >= promise - 4 * np.sqrt(promise * (1 - promise) / num_draws)
    independent = float((law_p * law_q).sum())  # without common noise they would agree so often
    assert agreed > 2 * independent
    assert agreed <= 1 - tv + 4 * np.sqrt(tv * (1 - tv) / num_draws)  # no coupling does better


def test_temperature_zero_is_greedy_whatever_the_seed() -> None:
    assert {sample(LOGITS, seed=seed, position=seed, temperature=0.0) for seed in range(50)} == {0}


def test_temperature_zero_ignores_top_k_and_top_p() -> None:
    assert sample(LOGITS, seed=1, position=2, temperature=0.0, top_k=3, top_p=0.1) == 0


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("top_k", [0, 3])
def test_kept_noise_draws_the_same(temperature: float, top_k: int) -> None:
    noise, sampling = Noise(5, LOGITS.size), Sampling(seed=5, temperature=temperature, top_k=top_k)
    for position in [*range(20), *range(10)]:
        assert sample_token(LOGITS, position, sampling, noise) == sample_token(LOGITS, position, sampling)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drawing_leaves_the_logits_alone(temperature: float) -> None:
    logits = LOGITS.copy()
    sample_token(logits, 0, Sampling(temperature=temperature, top_k=3, top_p=0.9))
    np.testing.assert_array_equal(logits, LOGITS)


def test_lead_is_the_distance_to_the_runner_up() -> None:
    assert sample_token(LOGITS, 0, Sampling(temperature=0)).lead == pytest.approx(0.5)
    sampling = Sampling(seed=8, temperature=0.5)
    scores = np.sort(LOGITS / np.float32(0.5) + gumbel(8, 3, LOGITS.size))
    assert sample_token(LOGITS, 3, sampling).lead == pytest.approx(float(scores[-1] - scores[-2]), rel=1e-5)


def test_near_tie_is_a_lead_under_the_tolerance() -> None:
    greedy = Sampling(temperature=0)
    tied = np.array([1.0, 1.0 - NEAR_TIE_TOLERANCE / 2, 0.0], np.float32)
    clear = np.array([1.0, 1.0 - NEAR_TIE_TOLERANCE * 2, 0.0], np.float32)
    assert sample_token(tied, 0, greedy).is_near_tie
    assert not sample_token(clear, 0, greedy).is_near_tie


def test_a_token_without_rivals_is_no_near_tie() -> None:
    assert not sample_token(LOGITS, 0, Sampling(top_k=1)).is_near_tie


@pytest.mark.parametrize("temperature", [1e-7, 1e-5])
def test_tiny_temperatures_are_greedy_and_finite(temperature: float) -> None:
    drawn = sample_token(LOGITS, 0, Sampling(temperature=temperature))
    assert drawn.token == 0
    assert np.isfinite(drawn.lead)


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=9, unique=True),
    st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    st.sampled_from([0, 1, 5, 64]),
    st.sampled_from([0.2, 0.9, 1.0]),
)
def test_many_rows_are_sampled_as_each_alone(
    positions: list[int], temperature: float, top_k: int, top_p: float
) -> None:
    values = Sampling(seed=3, temperature=temperature, top_k=top_k, top_p=top_p)
    logits = np.random.default_rng(positions).normal(0, 3, (len(positions), 64)).astype(np.float32)
    together = sample_rows(logits, positions, values, Noise(3, 64))
    alone = [sample_token(row, position, values) for row, position in zip(logits, positions, strict=True)]
    assert together.tokens.tolist() == [one.token for one in alone]
    np.testing.assert_allclose(together.leads, [one.lead for one in alone], rtol=1e-6)  # float32 against float64
