"""The acceptance rules: never, always and sometimes accept; whose picture, or whose law, comes out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ciar.shared.errors import InvalidRequest
from ciar.shared.sampling import Draw, draw, sample
from ciar.shared.tree import depths
from ciar.shared.types import Acceptance, Classic, Coupled, Lantern, Sampling, TreeDraft
from ciar.shared.verification import (
    Neighbours,
    Outcome,
    Rule,
    Walk,
    classic,
    coupled,
    lantern,
    law,
    make_rule,
    parse_acceptance,
    total_variation,
    verify,
    walk,
)

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


# ---- trees ---------------------------------------------------------------------------------------------------------

TREE = TreeDraft(0, 10, np.array([2, 1, 0, 3]), np.array([-1, -1, 0, 2]))
"""Offers 2 0 3, or 1."""


def walked(tree: TreeDraft, num_tokens: int = 20) -> Walk:
    """The laws of TABLE by depth, then flat ones with a tie of 0 and 1."""
    depth = [0, *(depths(tree.parents) + 1)]
    rows = [*TABLE, np.array([1, 1, 0, 0], np.float32)]
    return walk(GREEDY, lambda node: rows[depth[node + 1]], tree, num_tokens)


def test_a_walk_goes_on_while_the_tree_offers_the_clouds_token() -> None:
    assert walked(TREE) == Walk((2, 0, 3, 0), (13,))


def test_a_walk_ends_with_the_first_token_that_is_not_offered() -> None:
    assert walked(TreeDraft(0, 10, np.array([1, 0]), np.array([-1, 0]))) == Walk((2,), ())
    assert walked(TreeDraft(0, 10, np.array([2, 1]), np.array([-1, 0]))) == Walk((2, 0), ())


def test_a_walk_ends_with_the_picture() -> None:
    assert walked(TREE, num_tokens=12) == Walk((2, 0), ())


# ---- classic and LANTERN: hand-written laws ------------------------------------------------------------------------

P = np.array([0.5, 0.3, 0.2, 0.0])
Q = np.array([0.1, 0.6, 0.2, 0.1])
PLAIN = Sampling(seed=5)
CODES = np.array([[0.0], [1.0], [3.0], [3.5]], np.float32)
NEAREST = Neighbours(CODES).nearest


def logits_of(law: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(law).astype(np.float32)


def fates(rule: Rule, drafted: int, p: np.ndarray = P, q: np.ndarray = Q, count: int = 1000) -> np.ndarray:
    """What stands for `drafted` at each of many positions, whose noises are independent: int (count,)."""
    return np.array([rule(logits_of(p), position, drafted, logits_of(q)).token for position in range(count)])


def test_classic_always_accepts_what_the_cloud_likes_at_least_as_well() -> None:
    assert (fates(classic(PLAIN), drafted=0) == 0).all()
    assert (fates(classic(PLAIN), drafted=2) == 2).all()


def test_classic_never_accepts_what_the_cloud_excludes() -> None:
    stands = fates(classic(PLAIN), drafted=3)
    assert (stands == 0).all()  # the only token with p > q


def test_classic_sometimes_accepts_with_the_ratio_and_else_draws_from_the_residual() -> None:
    stands = fates(classic(PLAIN), drafted=1, count=4000)
    accepted = (stands == 1).mean()
    assert accepted == pytest.approx(0.5, abs=0.04)  # 5 standard deviations
    assert set(stands.tolist()) == {0, 1}


def test_a_device_that_drafts_what_its_own_law_excludes_is_not_believed() -> None:
    assert (fates(classic(PLAIN), drafted=2, q=np.array([0.5, 0.5, 0.0, 0.0])) != 2).all()


def test_equal_laws_accept_everything() -> None:
    for drafted in range(3):
        assert (fates(classic(PLAIN), drafted, q=P, count=300) == drafted).all()


def test_greedy_laws_are_certain() -> None:
    rule = classic(Sampling(temperature=0))
    assert rule(TABLE[0], 0, 2, TABLE[0]).token == 2
    assert rule(TABLE[0], 0, 0, TABLE[1]).token == 2


def test_where_nothing_was_drafted_every_rule_draws_as_the_cloud_alone() -> None:
    for acceptance in (Coupled(), Classic(), Lantern(2, 0.5)):
        rule = make_rule(acceptance, PLAIN, NEAREST)
        assert [rule(TABLE[0], t, -1).token for t in range(20)] == [
            sample(TABLE[0], seed=5, position=t) for t in range(20)
        ]


def test_a_rule_is_a_function_of_seed_and_position() -> None:
    rule, other = classic(PLAIN), classic(Sampling(seed=6))
    once, again = fates(rule, 1, count=200), fates(rule, 1, count=200)
    assert (once == again).all()
    assert (once != fates(other, 1, count=200)).any()
    assert 0 < (once == 1).sum() < 200


RANDOM_P, RANDOM_Q = (np.random.default_rng(seed).normal(scale=1.5, size=8).astype(np.float32) for seed in (1, 2))
NUM_DRAWS = 8_000


@pytest.mark.parametrize(
    "values", [{}, {"temperature": 0.6}, {"top_k": 4}, {"top_p": 0.8}, {"temperature": 1.5, "top_k": 6, "top_p": 0.9}]
)
def test_the_output_of_classic_has_the_clouds_law(values: dict[str, float]) -> None:
    """Chi-square at level 1e-4 over 8 000 draws; it finds a law that is off by a total variation of 0.03 at one token
    with probability above 0.97. Drafts are drawn as a device draws them, with the common noise: a bar or a residual
    that depended on that noise would bend the law by far more.
    """
    sampling = Sampling(seed=11, **values)
    rule = classic(sampling)
    counts = np.zeros(8, np.int64)
    accepted = 0
    for position in range(NUM_DRAWS):
        drafted = draw(RANDOM_Q, position, sampling).token
        token = rule(RANDOM_P, position, drafted, RANDOM_Q).token
        counts[token] += 1
        accepted += token == drafted
    p, q = law(RANDOM_P, sampling), law(RANDOM_Q, sampling)
    assert not counts[p == 0].any()
    assert stats.chisquare(counts[p > 0], p[p > 0] * NUM_DRAWS).pvalue > 1e-4
    assert accepted / NUM_DRAWS == pytest.approx(1 - total_variation(p, q), abs=0.03)


def test_lantern_without_neighbours_or_mass_is_classic() -> None:
    strict = classic(PLAIN)
    for rule in (lantern(PLAIN, NEAREST, 0, 0.9), lantern(PLAIN, NEAREST, 3, 0.0)):
        for drafted in range(4):
            assert (fates(rule, drafted, count=500) == fates(strict, drafted, count=500)).all()


def test_lantern_takes_the_longest_run_of_nearest_codes_within_the_mass() -> None:
    # The nearest of 1: 0 (p = .5), 2 (p = .2), 3 (p = 0).
    assert NEAREST(1, 3).tolist() == [0, 2, 3]
    assert (fates(lantern(PLAIN, NEAREST, 3, 0.4), 1) == fates(classic(PLAIN), 1)).all()  # .5 is too much
    lent = fates(lantern(PLAIN, NEAREST, 1, 0.51), 1)  # (.3 + .5) / .6: always
    assert (lent == 1).all()
    # Of 3: 2 (p = .2), so 3 stands with (0 + .2) / .1, though the cloud excludes it.
    assert NEAREST(3, 1).tolist() == [2]
    assert (fates(lantern(PLAIN, NEAREST, 1, 0.21), 3) == 3).all()


def test_lanterns_residual_leaves_out_the_codes_that_lent() -> None:
    p, q = np.array([0.05, 0.05, 0.4, 0.5]), np.array([0.0, 0.9, 0.05, 0.05])
    stands = fates(lantern(PLAIN, NEAREST, 1, 0.11), 1, p, q)
    assert set(stands.tolist()) == {1, 2, 3}
    assert 0 in fates(classic(PLAIN), 1, p, q)


def test_lantern_accepts_more_than_classic() -> None:
    def accepted(rule: Rule) -> int:
        drafts = [draw(RANDOM_Q, position, PLAIN).token for position in range(1000)]
        return sum(rule(RANDOM_P, t, x, RANDOM_Q).token == x for t, x in enumerate(drafts))

    nearest = Neighbours(np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)).nearest
    strict, relaxed = accepted(classic(PLAIN)), accepted(lantern(PLAIN, nearest, 3, 0.3))
    assert relaxed > strict + 50


def test_a_rule_gets_the_devices_law_of_the_position() -> None:
    laws = {10: Q, 12: P}
    result = verify(
        classic(PLAIN), lambda t: logits_of(P), [10, 12], lambda t: {10: 0, 12: 1}[t], lambda t: logits_of(laws[t])
    )
    assert result.corrected_at is None


def test_neighbours_are_the_nearest_others_in_order() -> None:
    codes = np.random.default_rng(3).normal(size=(40, 5)).astype(np.float32)
    nearest = Neighbours(codes).nearest
    for token in (0, 17, 39):
        distances = np.linalg.norm(codes - codes[token], axis=1)
        expected = [i for i in np.argsort(distances).tolist() if i != token]
        assert nearest(token, 39).tolist() == expected
        assert nearest(token, 7).tolist() == expected[:7]
    assert Neighbours(np.zeros((3, 1), np.float32)).nearest(1, 2).tolist() == [0, 2]


def test_lantern_needs_distances() -> None:
    with pytest.raises(InvalidRequest, match=r"^open\.acceptance\.lantern: no distances"):
        make_rule(Lantern(1, 0.1), PLAIN)


@pytest.mark.parametrize(
    ("spec", "acceptance"),
    [
        ("coupled", Coupled()),
        (" Classic", Classic()),
        ("lantern", Lantern(31, 0.1)),
        ("lantern:7", Lantern(7, 0.1)),
        ("lantern:0:0", Lantern(0, 0.0)),
        ("lantern:511:1", Lantern(511, 1.0)),
    ],
)
def test_rules_by_name(spec: str, acceptance: Acceptance) -> None:
    parsed = parse_acceptance(spec, 512)
    assert parsed == acceptance
    assert parse_acceptance(str(parsed), 512) == parsed


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("clasic", "did you mean 'classic'"),
        ("eagle", "known are coupled, classic, lantern"),
        ("classic:1", "too many values"),
        ("lantern:1:0.1:2", "too many values"),
        ("lantern:512", "K of lantern must be a whole number in [0, 511] (got '512')"),
        ("lantern:0.5", "K of lantern must be a whole number"),
        ("lantern:-1", "K of lantern"),
        ("lantern:5:1.5", "DELTA of lantern must be a number in [0, 1] (got '1.5')"),
        ("lantern:5:nan", "DELTA of lantern"),
        ("", "known are"),
    ],
)
def test_nonsense_is_a_sentence(spec: str, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^acceptance: ") as caught:
        parse_acceptance(spec, 512)
    assert sentence in str(caught.value)
