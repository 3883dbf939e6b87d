"""The acceptance rules: which drafted tokens stand, where the cloud's own takes over.

p is the cloud's law, q the device's, both after temperature, top-k and top-p; x a drafted token, y the cloud's. In: the
cloud's logits at the asked positions of a block, and the device's where a rule needs them. Out: how far the block
stands, and the correction. This numpy code is what the server runs, and the reference.

A token is a function of the seed and of the tokens before it under every rule: whatever a rule draws comes from streams
of noise of its own, addressed by seed and position.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ciar.shared.errors import InvalidRequest
from ciar.shared.sampling import Draw, draw, filtered, gumbel, strongest, uniform
from ciar.shared.tree import ROOT, children
from ciar.shared.types import Acceptance, Classic, Coupled, Lantern, Sampling, TreeDraft

Logits = NDArray[np.float32]
Law = NDArray[np.float64]
Ids = NDArray[np.int64]

_ACCEPTING, _RESIDUAL = 1, 2
"""Streams of noise beside the one that tokens are drawn with: x must not depend on what it is judged by."""

LANTERN_MASS = 0.1
"""δ by default, as in LANTERN's paper."""


class Rule(Protocol):
    """Judges one drafted token."""

    def __call__(self, logits: Logits, position: int, drafted: int, device_logits: Logits | None = None, /) -> Draw:
        """The token that stands at `position`: x = `drafted` itself if it is accepted.

        logits: (V,) of p; device_logits: (V,) of q, None where nothing was drafted and the cloud's own draw is wanted.
        """
        ...


Nearest = Callable[[int, int], Ids]
"""(token, k) -> (k,) the k other tokens that are nearest to it, nearest first."""


def make_rule(acceptance: Acceptance, sampling: Sampling, nearest: Nearest | None = None) -> Rule:
    """The rule that a session asks for. Raises InvalidRequest if LANTERN is asked for where no distances are known."""
    match acceptance:
        case Coupled():
            return coupled(sampling)
        case Classic():
            return classic(sampling)
        case Lantern(num_neighbours, max_mass):
            if nearest is None:
                raise InvalidRequest(
                    "open.acceptance.lantern: no distances between tokens are known here; take classic"
                )
            return lantern(sampling, nearest, num_neighbours, max_mass)


def coupled(sampling: Sampling) -> Rule:
    """y = argmax(log p + g); accept iff x = y (ours; Gumbel coupling).

    Since x = argmax(log q + g) with the same g, the output is the cloud's own picture for that seed, whatever q is.
    """

    def rule(logits: Logits, position: int, _drafted: int, _device_logits: Logits | None = None, /) -> Draw:
        return draw(logits, position, sampling)

    return rule


def classic(sampling: Sampling) -> Rule:
    """Accept x with probability min(1, p(x)/q(x)), else draw from norm(max(p − q, 0)).

    Speculative sampling (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318). If x was drawn from q, the
    output has the law p: the cloud's, though not the token that the cloud would draw alone.
    """

    def nobody(_p: Law, _drafted: int) -> Ids:
        return np.zeros(0, np.int64)

    return _speculative(sampling, nobody)


def lantern(sampling: Sampling, nearest: Nearest, num_neighbours: int, max_mass: float) -> Rule:
    """Classic, with p(x) + S in place of p(x); S is what x's nearest codes have, as long as it is at most δ.

    LANTERN (Jang et al., ICLR 2025, arXiv 2410.03355): of the k = `num_neighbours` codes nearest to x, the longest run
    N₁ … Nₘ with S = Σ p(Nᵢ) ≤ δ = `max_mass`; accept x with probability min(1, (p(x) + S)/q(x)), else draw from
    norm(max(p − q, 0)) without x and those codes. If nothing is left there, from what classic would draw from (ours).
    The law is not the cloud's: it is off by what δ allows.
    """

    def lending(p: Law, drafted: int) -> Ids:
        ids = nearest(drafted, num_neighbours)  # (k,)
        return ids[: np.searchsorted(p[ids].cumsum(), max_mass, side="right")]  # (m,)

    return _speculative(sampling, lending)


def _speculative(sampling: Sampling, lending: Callable[[Law, int], Ids]) -> Rule:
    """Accept-or-resample; lending(p, x) -> tokens that lend x their probability."""
    seed = sampling.seed

    def rule(logits: Logits, position: int, drafted: int, device_logits: Logits | None = None, /) -> Draw:
        if device_logits is None:
            return draw(logits, position, sampling)
        p, q = law(logits, sampling), law(device_logits, sampling)  # (V,) each
        lenders = lending(p, drafted)
        support = p[drafted] + p[lenders].sum()
        # A device that drafts what its own law excludes is not believed.
        ratio = support / q[drafted] if q[drafted] > 0 else 0.0
        bar = uniform(seed, position, _ACCEPTING)
        lead = abs(math.log(ratio) - math.log(bar)) if ratio > 0 else math.inf
        if bar < ratio:
            return Draw(drafted, lead)
        residual = _residual(p, q, drafted, lenders)  # (V,)
        with np.errstate(divide="ignore"):
            scores = np.log(residual) + gumbel(seed, position, p.size, _RESIDUAL)
        own = strongest(scores)
        return Draw(own.token, min(lead, own.lead))

    return rule


def _residual(p: Law, q: Law, drafted: int, lenders: Ids) -> Law:
    """What is drawn from after a rejection, not normed; the first of these that has any mass."""
    plain = np.maximum(p - q, 0)
    strict = plain.copy()
    strict[lenders] = 0
    strict[drafted] = 0
    return next(weights for weights in (strict, plain, p) if weights.any())


def law(logits: Logits, sampling: Sampling) -> Law:
    """The probabilities (V,) that tokens are drawn with; greedy is certain of one."""
    if sampling.temperature == 0:
        return np.asarray(np.arange(logits.size) == logits.argmax(), np.float64)
    scores = filtered(logits, sampling).astype(np.float64)
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


class Neighbours:
    """The nearest tokens by Euclidean distance in a latent space; each look-up is computed once, when it is needed."""

    def __init__(self, codes: NDArray[np.float32]) -> None:
        """codes: (V, d), a point for each token.

        LANTERN means the codes of the VQ codebook. A server holds no codebook: it takes the rows of the cloud model's
        token embedding as the latent space, which is a space of what tokens mean to the model, not of pixels.
        """
        self._codes = codes
        self._norms = np.square(codes).sum(1)  # (V,)
        self.nearest: Nearest = lru_cache(maxsize=4096)(self._nearest)

    def _nearest(self, token: int, count: int) -> Ids:
        distances = self._norms - self._codes @ (2 * self._codes[token])  # (V,) less |token|², the same for all
        distances[token] = np.inf
        return np.argsort(distances, kind="stable")[:count].astype(np.int64)  # equally near: the smaller id first


def lantern_neighbours(vocab_size: int) -> int:
    """k by default: the 1000 of 16 384 of LANTERN's paper, in proportion to the vocabulary."""
    return max(1, round(1000 / 16_384 * vocab_size))


def parse_acceptance(spec: str, vocab_size: int) -> Acceptance:
    """A rule from its name: "coupled", "classic", "lantern", "lantern:K" or "lantern:K:DELTA".

    Without numbers LANTERN takes the paper's: k = 1000 of 16 384, in proportion to the vocabulary, and δ = 0.1. Raises
    InvalidRequest that says what is wrong.
    """
    kind, *arguments = spec.strip().lower().split(":")
    match kind, arguments:
        case "coupled", []:
            return Coupled()
        case "classic", []:
            return Classic()
        case "lantern", [] | [_] | [_, _]:
            num_neighbours, max_mass = lantern_neighbours(vocab_size), LANTERN_MASS
            if arguments:
                num_neighbours = int(_number("K", arguments[0], int, vocab_size - 1))
            if arguments[1:]:
                max_mass = _number("DELTA", arguments[1], float, 1)
            return Lantern(num_neighbours, max_mass)
        case (("coupled" | "classic" | "lantern"), _):
            raise InvalidRequest(f"acceptance: too many values in {spec!r}; say coupled, classic or lantern:K:DELTA")
        case _:
            names = ("coupled", "classic", "lantern")
            nearest = difflib.get_close_matches(kind, names, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(names)}"
            raise InvalidRequest(f"acceptance: unknown rule {kind!r}; {hint}")


def _number(name: str, text: str, kind: type[int] | type[float], most: float) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = kind(-1)
    if not 0 <= value <= most:
        what = "a whole number" if kind is int else "a number"
        raise InvalidRequest(f"acceptance: {name} of lantern must be {what} in [0, {most:g}] (got {text!r})")
    return value


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule made of a block."""

    corrected_at: int | None
    """Position of the first token that did not stand."""
    token: int | None
    """The cloud's token there."""
    near_ties: tuple[int, ...]
    """Asked positions, up to the correction, that were decided by less than the near-tie tolerance."""


def verify(
    rule: Rule,
    logits_at: Callable[[int], Logits],
    asked: Iterable[int],
    drafted: Callable[[int], int],
    device_logits_at: Callable[[int], Logits] | None = None,
) -> Outcome:
    """Apply `rule` to the asked positions in ascending order, up to the first correction.

    logits_at(position) -> (V,), the cloud's logits there; drafted(position) -> the device's token there;
    device_logits_at(position) -> (V,), the device's logits there, None for a rule that needs none.
    """
    near_ties: list[int] = []
    for position in asked:
        known = () if device_logits_at is None else (device_logits_at(position),)
        verdict = rule(logits_at(position), position, drafted(position), *known)
        if verdict.is_near_tie:
            near_ties.append(position)
        if verdict.token != drafted(position):
            return Outcome(position, verdict.token, tuple(near_ties))
    return Outcome(None, None, tuple(near_ties))


@dataclass(frozen=True, slots=True)
class Walk:
    """What the cloud drew along a tree."""

    tokens: tuple[int, ...]
    """From the tree's first position on: those of the nodes it passed, and one more unless the picture ends."""
    near_ties: tuple[int, ...]


def walk(rule: Rule, logits_at: Callable[[int], Logits], tree: TreeDraft, num_tokens: int) -> Walk:
    """Draw the cloud's own tokens from a tree's start on, for as long as the last one drawn is a node of the tree.

    logits_at(node) -> (V,), the cloud's logits after a node, −1 for the root; num_tokens: T. With the coupled rule
    these are the tokens that the cloud draws alone, whatever the tree offers (exact verification; ours). The
    multi-round rejection sampling of EAGLE-2 (arXiv 2406.16858) keeps the law only.
    """
    offers = children(tree.tokens.tolist(), tree.parents.tolist())
    tokens: list[int] = []
    near_ties: list[int] = []
    node: int | None = ROOT
    while node is not None and (position := tree.start + len(tokens)) < num_tokens:
        own = rule(logits_at(node), position, -1)
        tokens.append(own.token)
        if own.is_near_tie:
            near_ties.append(position)
        node = offers.get((node, own.token))
    return Walk(tuple(tokens), tuple(near_ties))


def total_variation(p: NDArray[np.floating], q: NDArray[np.floating]) -> NDArray[np.floating]:
    """TV(p, q) = ½‖p − q‖₁ over the last axis: (…, V) -> (…)."""
    return np.asarray(0.5 * np.abs(p - q).sum(-1))
