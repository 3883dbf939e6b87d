"""Gates: which drafted tokens the device decides alone, and which the cloud has to verify.

In: a position and the drafter's scores of it, in raster order. Out: verify, or not. A gate knows neither tokens nor
network: its decisions are a pure function of the scores it has seen at the positions before (after a rollback: that
still stand), so a picture depends on its seed and never on timing.
"""

from __future__ import annotations

import bisect
import difflib
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ciar.shared.bundle import Manifest
from ciar.shared.errors import InvalidRequest

ScoreName = Literal["uncertainty", "ambiguity"]

PRIOR_WEIGHT = 32
"""Pseudo-observations that stand for the held-out captions when a running quantile begins (ours)."""


class Scores(NamedTuple):
    """What the drafter says of one token: its Inter-Head's scores (paper), and the distribution they are about."""

    ambiguity: float
    """Ω, total width of the probability interval."""
    disparity: float
    """Σ, standard deviation of the widths."""
    uncertainty: float
    """U = Ω · Σ."""
    center: NDArray[np.float32] | None = None
    """(V,) logits of the guided distribution, for gates that look at it; the drafter's own, valid during the call."""


class Gate(Protocol):
    """Decides who decides."""

    @property
    def name(self) -> str:
        """The gate as `make_gate` would read it."""
        ...

    def must_verify(self, position: int, scores: Scores) -> bool:
        """Whether the cloud shall verify the token drafted at `position`; positions ascend between rollbacks."""
        ...

    def rollback(self, position: int) -> None:
        """Forget everything about this position and those after it."""
        ...


class VerifyAll:
    """The closed gate: the cloud verifies every token, so the picture is the cloud's own (lossless)."""

    name = "always"

    def must_verify(self, position: int, scores: Scores) -> bool:
        return True

    def rollback(self, position: int) -> None:
        pass


class VerifyNone:
    """The open gate: the device goes on alone."""

    name = "never"

    def must_verify(self, position: int, scores: Scores) -> bool:
        return False

    def rollback(self, position: int) -> None:
        pass


class FixedThreshold:
    """Has tokens verified whose score is above a threshold (the paper's rule, with an absolute τ)."""

    def __init__(self, threshold: float, score: ScoreName = "uncertainty") -> None:
        self._threshold = threshold
        self._score = score
        self.name = _spec("threshold", threshold, score)

    def must_verify(self, position: int, scores: Scores) -> bool:
        return not _value(scores, self._score) <= self._threshold

    def rollback(self, position: int) -> None:
        pass


class CalibratedThreshold:
    """Has verified what is more uncertain than the given share of held-out tokens (ours).

    A threshold for all pictures: less than the share of an easy picture is verified and more of a hard one, where a
    running quantile takes the same share of each. The history does not matter, only the token's own score.
    """

    def __init__(self, share: float, quantiles: Sequence[float], score: ScoreName = "uncertainty") -> None:
        """share in [0, 1]: verified of all held-out tokens; quantiles: evenly spaced, 0 to 1, of the score on them."""
        self.name = _spec("calibrated", share, score)
        self.threshold = float(np.interp(1 - share, np.linspace(0, 1, len(quantiles)), quantiles))
        """τ; with share 0 nothing is verified, with share 1 everything."""
        if share in (0, 1):
            self.threshold = math.inf if share == 0 else -math.inf
        self._gate = FixedThreshold(self.threshold, score)

    def must_verify(self, position: int, scores: Scores) -> bool:
        return self._gate.must_verify(position, scores)

    def rollback(self, position: int) -> None:
        pass


class NearbyThreshold:
    """Has verified what is most uncertain, with less confidence beside what is verified (ours).

    A local token behind a rejection that comes out differently costs a round trip (a fork), and it is the tokens beside
    a verified one that depend on it. So a token whose left neighbour, or one of the three above, is verified has a
    lower threshold. As in hysteresis, verified tokens form connected regions: contours, not speckles.
    """

    def __init__(self, share: float, near_share: float, quantiles: Sequence[float], grid_width: int) -> None:
        """share, near_share in [0, 1]: of all held-out tokens, above the threshold and above the lower one; quantiles:
        evenly spaced, 0 to 1, of U on them; grid_width: tokens in a row."""
        self.name = f"nearby:{share:g}:{near_share:g}"
        self._threshold = CalibratedThreshold(share, quantiles).threshold
        self._near_threshold = CalibratedThreshold(max(share, near_share), quantiles).threshold
        self._width = grid_width
        self._verified: list[bool] = []

    def must_verify(self, position: int, scores: Scores) -> bool:
        del self._verified[position:]
        self._verified += [False] * (position - len(self._verified))  # what the cloud generated first
        near = position % self._width > 0 and self._verified[position - 1]
        if not near and position >= self._width:
            above = position - self._width
            left = above - (above % self._width > 0)
            right = above + (above % self._width < self._width - 1)
            near = any(self._verified[left : right + 1])
        to_verify = not _value(scores, "uncertainty") <= (self._near_threshold if near else self._threshold)
        self._verified.append(to_verify)
        return to_verify

    def rollback(self, position: int) -> None:
        del self._verified[position:]


class RunningQuantile:
    """Has verified the given share of the most uncertain tokens, among those seen so far (our reading of "dynamic").

    The held-out quantiles of the score are the first observations, so the first tokens are judged sensibly too. A token
    that ties with others counts as the most uncertain of them: a score that cannot tell tokens apart has all verified.
    """

    def __init__(self, share: float, prior_quantiles: Sequence[float], score: ScoreName = "uncertainty") -> None:
        """share in [0, 1]; prior_quantiles: evenly spaced quantiles, 0 to 1, of the score."""
        self._share = share
        self._score = score
        ranks = (np.arange(PRIOR_WEIGHT) + 0.5) / PRIOR_WEIGHT  # (PRIOR_WEIGHT,)
        prior = np.interp(ranks, np.linspace(0, 1, len(prior_quantiles)), prior_quantiles)
        self._sorted: list[float] = sorted(prior.tolist())
        self._seen: list[tuple[int, float]] = []
        self.name = _spec("quantile", share, score)

    def must_verify(self, position: int, scores: Scores) -> bool:
        value = _value(scores, self._score)
        bisect.insort(self._sorted, value)
        self._seen.append((position, value))
        num_above = len(self._sorted) - bisect.bisect_right(self._sorted, value)
        return num_above < self._share * len(self._sorted)

    def rollback(self, position: int) -> None:
        while self._seen and self._seen[-1][0] >= position:
            _, value = self._seen.pop()
            del self._sorted[bisect.bisect_left(self._sorted, value)]


class CertifiedBudget:
    """Spends at most ε on Σ Ω/2 over the tokens decided alone (ours).

    If the cloud's distribution lies inside a token's interval, deciding it alone costs at most Ω/2 of total variation,
    so the picture's distribution differs from the cloud's by at most ε. What may be spent grows evenly over the
    picture; what is not spent stays available.
    """

    def __init__(self, budget: float, num_tokens: int) -> None:
        """budget: ε ≥ 0; num_tokens: T of a picture."""
        self._budget = budget
        self._num_tokens = num_tokens
        self._spent_after: list[tuple[int, float]] = []
        self.name = f"certified:{budget:g}"

    @property
    def spent(self) -> float:
        """Σ Ω/2 of the tokens decided alone so far."""
        return self._spent_after[-1][1] if self._spent_after else 0.0

    def must_verify(self, position: int, scores: Scores) -> bool:
        total = self.spent + scores.ambiguity / 2
        allowance = self._budget * min(1.0, (position + 1) / self._num_tokens)
        if not total <= allowance:
            return True
        self._spent_after.append((position, total))
        return False

    def rollback(self, position: int) -> None:
        while self._spent_after and self._spent_after[-1][0] >= position:
            self._spent_after.pop()


def make_gate(spec: str, manifest: Manifest) -> Gate:
    """A gate from its name.

    "calibrated:0.2", "nearby:0.2:0.8", "quantile:0.2", "threshold:0.3", "certified:12", "always" or "never".
    "calibrated" and "quantile" alone take the pair's measured share; with ":ambiguity" at the end, as in
    "quantile:0.2:ambiguity" or "threshold:3:ambiguity", they look at Ω instead of U. "paper" is "quantile", our reading
    of the paper's dynamic threshold. Raises InvalidRequest that says what is wrong.
    """
    kind, *arguments = spec.strip().lower().split(":")
    if kind not in _MAKERS:
        nearest = difflib.get_close_matches(kind, _MAKERS, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(_MAKERS)}"
        raise InvalidRequest(f"gate: unknown gate {kind!r}; {hint}")
    return _MAKERS[kind](arguments, manifest)


def _make_calibrated(arguments: list[str], manifest: Manifest) -> Gate:
    return CalibratedThreshold(*_share_of("calibrated", arguments, manifest))


def _make_quantile(arguments: list[str], manifest: Manifest) -> Gate:
    return RunningQuantile(*_share_of("quantile", arguments, manifest))


def _make_nearby(arguments: list[str], manifest: Manifest) -> Gate:
    _at_most("nearby", arguments, 2)
    share = _number("nearby", arguments, default=manifest.defaults.verify_share, low=0, high=1)
    near_share = _number("nearby", arguments[1:], default=min(1.0, 4 * share), low=0, high=1)
    return NearbyThreshold(share, near_share, manifest.uncertainty_quantiles, manifest.grid_width)


def _share_of(kind: str, arguments: list[str], manifest: Manifest) -> tuple[float, Sequence[float], ScoreName]:
    """Share, held-out quantiles of the score, and the score."""
    share = _number(kind, arguments, default=manifest.defaults.verify_share, low=0, high=1)
    score = _score_name(kind, arguments)
    return share, manifest.uncertainty_quantiles if score == "uncertainty" else manifest.ambiguity_quantiles, score


def _make_threshold(arguments: list[str], manifest: Manifest) -> Gate:
    threshold = _number("threshold", arguments, default=None, low=0, high=math.inf)
    return FixedThreshold(threshold, _score_name("threshold", arguments))


def _make_certified(arguments: list[str], manifest: Manifest) -> Gate:
    _at_most("certified", arguments, 1)
    return CertifiedBudget(_number("certified", arguments, default=None, low=0, high=math.inf), manifest.num_tokens)


def _make_always(arguments: list[str], manifest: Manifest) -> Gate:
    _at_most("always", arguments, 0)
    return VerifyAll()


def _make_never(arguments: list[str], manifest: Manifest) -> Gate:
    _at_most("never", arguments, 0)
    return VerifyNone()


_MAKERS: dict[str, Callable[[list[str], Manifest], Gate]] = {
    "calibrated": _make_calibrated,
    "nearby": _make_nearby,
    "quantile": _make_quantile,
    "paper": _make_quantile,
    "threshold": _make_threshold,
    "certified": _make_certified,
    "always": _make_always,
    "never": _make_never,
}


def _number(kind: str, arguments: list[str], *, default: float | None, low: float, high: float) -> float:
    if not arguments:
        if default is None:
            raise InvalidRequest(f"gate: {kind} needs a number, such as '{kind}:0.3'")
        return default
    try:
        value = float(arguments[0])
    except ValueError:
        raise InvalidRequest(f"gate: {arguments[0]!r} of {kind} is not a number") from None
    if not (low <= value <= high and math.isfinite(value)):
        span = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f"finite and at least {low:g}"
        raise InvalidRequest(f"gate: the number of {kind} must be {span} (got {arguments[0]})")
    return value


def _score_name(kind: str, arguments: list[str]) -> ScoreName:
    _at_most(kind, arguments, 2)
    match arguments[1:]:
        case [] | ["uncertainty"]:
            return "uncertainty"
        case ["ambiguity"]:
            return "ambiguity"
        case _:
            raise InvalidRequest(f"gate: {kind} looks at 'uncertainty' or 'ambiguity' (got {arguments[1]!r})")


def _at_most(kind: str, arguments: list[str], num_allowed: int) -> None:
    if len(arguments) > num_allowed:
        raise InvalidRequest(f"gate: {kind} takes at most {num_allowed} values (got {len(arguments)})")


def _value(scores: Scores, score: ScoreName) -> float:
    """The score looked at; not-a-number counts as utterly unsure."""
    value = scores.uncertainty if score == "uncertainty" else scores.ambiguity
    return math.inf if math.isnan(value) else value


def _spec(kind: str, value: float, score: ScoreName) -> str:
    return f"{kind}:{value:g}" + ("" if score == "uncertainty" else f":{score}")
