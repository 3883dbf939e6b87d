"""The gate as a selective predictor: does it accept the tokens at which device and cloud agree?

In: a `Table` of a roll-out. Out: figures, each with its spread over the groups of pictures. The *risk* of accepting a
drafted token is the total variation between the two laws there, which is the chance that an optimal coupling of them
would disagree; it judges laws, not draws. A score is judged by the order in which it would accept tokens, the gate by
the tokens that it did accept. The risk, the oracle and the share of the way to it are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ciar.benchmarks.evaluation.rollout import Table
from ciar.training.ranking import Values, accepted_mean, aurc, auroc

COVERAGES = (0.7, 0.8)
"""Shares of locally decided tokens at which scores are compared."""

ORACLE = "oracle"
"""The score that knows the total variation."""

RIVALS = ("entropy", "max probability")
"""What the paper's U is to beat."""

_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t for a two-sided 95 % interval with 1, 2, … degrees of freedom; the last serves for all further ones."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its spread over groups."""

    mean: float
    half_width: float
    """Of the 95 % interval of Student's t over groups; nan of a single group."""
    groups: tuple[float, ...]
    """The figure of each group."""

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of one value a group, with its interval."""
    count, mean = len(values), float(np.mean(values))
    groups = tuple(map(float, values))
    if count < 2:
        return Estimate(mean, math.nan, groups)
    factor = _T_975[min(count - 1, len(_T_975)) - 1]
    return Estimate(mean, factor * float(np.std(values, ddof=1)) / math.sqrt(count), groups)


def by_group(values: Values, group: NDArray[np.int64]) -> Estimate:
    """The mean of values (N,), one a picture, over groups (N,)."""
    return estimate([float(values[group == number].mean()) for number in np.unique(group)])


@dataclass(frozen=True)
class Positions:
    """The drafted positions of some pictures, flattened: (n,) each."""

    tv: Values
    agree: Values
    """1 where both sides drew the same token, else 0."""
    greedy_agree: Values
    asked: NDArray[np.bool_]
    scores: Mapping[str, Values]
    """The oracle's among them."""


def positions(table: Table, group: int | None = None) -> Positions:
    """What was drafted in the pictures of a group, or of all."""
    rows = slice(None) if group is None else table.group == group

    def flat(column: NDArray[np.generic]) -> Values:
        return np.asarray(column[rows, table.num_prefix :], np.float64).ravel()

    tv = flat(table.tv)
    return Positions(
        tv,
        flat(table.drafted == table.cloud),
        flat(table.greedy_agree),
        flat(table.asked) > 0,
        {name: flat(values) for name, values in table.scores.items()} | {ORACLE: tv},
    )


@dataclass(frozen=True)
class ScoreRow:
    """One score as a ranking."""

    name: str
    aurc: Estimate
    auroc: Estimate
    """For the coupled draws differing."""
    tv: Mapping[float, Estimate]
    """Mean TV among the accepted, by coverage."""
    agreement: Mapping[float, Estimate]
    """Coupled agreement among the accepted, by coverage."""
    share_of_way: Mapping[float, Estimate]
    """(random − score) / (random − oracle), of the mean accepted TV, by coverage."""


@dataclass(frozen=True)
class GateRow:
    """The gate as it decided, beside an oracle that accepts as many tokens."""

    local_share: Estimate
    """Accepted tokens, of those after the prefix."""
    tv: Estimate
    """Mean TV among the accepted."""
    oracle_tv: Estimate
    random_tv: Estimate
    share_of_way: Estimate
    """(random − gate) / (random − oracle), of the mean accepted TV."""
    agreement: Estimate
    """Coupled agreement among the accepted."""
    agreement_over_oracle: Estimate


@dataclass(frozen=True)
class Agreement:
    """Drafter and cloud over all drafted positions."""

    greedy: Estimate
    coupled: Estimate
    tv: Estimate


@dataclass(frozen=True)
class Bound:
    """Whether Ω/2 covers the distance, as the certified gate counts on."""

    covered: Estimate
    """Share of the positions with TV ≤ Ω/2."""
    covered_accepted: Estimate
    """The same among the accepted."""
    budget: Estimate
    """Mean over pictures of Σ Ω/2 over the accepted tokens."""
    distance: Estimate
    """Mean over pictures of Σ TV over the same."""
    pictures_covered: Estimate
    """Share of the pictures in which the budget is at least the distance."""


@dataclass(frozen=True)
class Selective:
    """Everything that one table says."""

    num_pictures: int
    num_positions: int
    agreement: Agreement
    scores: tuple[ScoreRow, ...]
    gate: GateRow | None
    """None where nothing or everything was accepted."""
    bound: Bound
    rival_aurc: Mapping[str, Estimate]
    """AURC of U minus that of a rival, group by group on the same tokens; below 0, U is better."""


def judge(table: Table) -> Selective:
    """All figures of a table."""
    groups = [positions(table, int(group)) for group in np.unique(table.group)]

    def over_groups(figure: Callable[[Positions], float]) -> Estimate:
        return estimate([figure(group) for group in groups])

    return Selective(
        num_pictures=len(table.group),
        num_positions=sum(len(group.tv) for group in groups),
        agreement=Agreement(
            over_groups(lambda g: g.greedy_agree.mean()),
            over_groups(lambda g: g.agree.mean()),
            over_groups(lambda g: g.tv.mean()),
        ),
        scores=tuple(_score_row(name, groups) for name in groups[0].scores),
        gate=_gate_row(groups) if all(0 < g.asked.sum() < len(g.asked) for g in groups) else None,
        bound=_bound(table),
        rival_aurc={
            rival: over_groups(lambda g, rival=rival: _aurc(g, "uncertainty") - _aurc(g, rival)) for rival in RIVALS
        },
    )


def _aurc(group: Positions, score: str) -> float:
    return aurc(group.scores[score], group.tv)


def _score_row(name: str, groups: Sequence[Positions]) -> ScoreRow:
    def at(coverage: float, column: str) -> Estimate:
        return estimate([accepted_mean(g.scores[name], getattr(g, column), coverage) for g in groups])

    def way(coverage: float) -> Estimate:
        return estimate([_share_of_way(g, accepted_mean(g.scores[name], g.tv, coverage), coverage) for g in groups])

    return ScoreRow(
        name,
        estimate([_aurc(group, name) for group in groups]),
        estimate([auroc(group.scores[name], group.agree == 0) for group in groups]),
        {coverage: at(coverage, "tv") for coverage in COVERAGES},
        {coverage: at(coverage, "agree") for coverage in COVERAGES},
        {coverage: way(coverage) for coverage in COVERAGES},
    )


def _share_of_way(group: Positions, tv: float, coverage: float) -> float:
    """How far a mean accepted TV is on the way from random to the oracle; nan if that is no way at all."""
    random, best = float(group.tv.mean()), accepted_mean(group.tv, group.tv, coverage)
    return (random - tv) / (random - best) if random > best else math.nan


def _gate_row(groups: Sequence[Positions]) -> GateRow:
    shares = [float(1 - g.asked.mean()) for g in groups]
    tv = [float(g.tv[~g.asked].mean()) for g in groups]
    agreement = [float(g.agree[~g.asked].mean()) for g in groups]
    random = [float(g.tv.mean()) for g in groups]
    best = [accepted_mean(g.tv, g.tv, share) for g, share in zip(groups, shares, strict=True)]
    best_agreement = [accepted_mean(g.tv, g.agree, share) for g, share in zip(groups, shares, strict=True)]
    ways = [_share_of_way(g, t, share) for g, t, share in zip(groups, tv, shares, strict=True)]
    ratios = [a / b if b else math.nan for a, b in zip(agreement, best_agreement, strict=True)]
    return GateRow(
        *map(estimate, (shares, tv, best, random, ways, agreement, ratios)),
    )


def _bound(table: Table) -> Bound:
    span = slice(table.num_prefix, None)
    half = np.asarray(table.scores["ambiguity"][:, span], np.float64) / 2  # (N, n)
    tv, accepted = np.asarray(table.tv[:, span], np.float64), ~table.asked[:, span]
    if not accepted.any():  # everything was asked: judge all positions
        accepted = np.ones_like(accepted)
    budget, distance = (half * accepted).sum(1), (tv * accepted).sum(1)  # (N,)
    covered = tv <= half
    rows = [table.group == group for group in np.unique(table.group)]
    return Bound(
        estimate([float(covered[r].mean()) for r in rows]),
        estimate([float(covered[r][accepted[r]].mean()) for r in rows]),
        estimate([float(budget[r].mean()) for r in rows]),
        estimate([float(distance[r].mean()) for r in rows]),
        estimate([float((budget[r] >= distance[r]).mean()) for r in rows]),
    )
