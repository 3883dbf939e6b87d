"""The coupled sampler: device and cloud sample token t with the same noise, so that equal distributions give equal
tokens.

In: logits, and (seed, position). Out: a token, and by how much it won. Gumbel-max sampling with common random numbers
(the Gumbel coupling of Daliri et al., arXiv 2408.07978): two distributions p and q pick the same token with probability
at least (1 − TV) / (1 + TV). The noise comes from a counter-based generator, addressed by (seed, position) and by
nothing else, so neither batching, order nor restarts can change it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray

from ciar.shared.types import Sampling

Logits = NDArray[np.float32]

NEAR_TIE_TOLERANCE = 1e-3
"""A lead smaller than this (log-probability units) may be turned by floating-point noise between batch shapes."""

MIN_TEMPERATURE = 1e-5
"""Floor of the divisor, as in LlamaGen; temperature 0 itself is greedy and needs no noise."""

MAX_KEPT_VALUES = 2**20
"""Of the noise of one picture: 4 MiB, 2048 positions at V = 512 and 64 at V = 16 384."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A token and its lead over the runner-up, in units of log-probability over temperature."""

    token: int
    lead: float

    @property
    def is_near_tie(self) -> bool:
        return self.lead < NEAR_TIE_TOLERANCE


def gumbel(seed: int, position: int, vocab_size: int, stream: int = 0) -> Logits:
    """Standard Gumbel noise of one token position: float32 (V,), a pure function of its arguments.

    Philox-4x64 keyed by (seed, position); raw words only, whose stream numpy guarantees not to change. 32 random
    bits a value, small side first, so the upper tail (which decides an arg-max) has full float32 resolution.
    stream: 0 is the noise that tokens are sampled with; others are independent of it and of each other.
    """
    words = _words(seed, position, stream, (vocab_size + 1) // 2)
    u = (words.view(np.uint32)[:vocab_size].astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    np.minimum(u, np.float32(1 - 2.0**-24), out=u)
    return np.asarray(-np.log(-np.log1p(-u)), np.float32)


def uniform(seed: int, position: int, stream: int) -> float:
    """A number in (0, 1) of one token position, from a stream of its own (see `gumbel`)."""
    return (int(_words(seed, position, stream, 1)[0] >> np.uint64(11)) + 0.5) * 2.0**-53


def _words(seed: int, position: int, stream: int, count: int) -> NDArray[np.uint64]:
    """Raw words of a stream: its number is the counter's highest word, which no picture ever counts up to."""
    counter = np.array([0, 0, 0, stream], dtype=np.uint64)
    bits = np.random.Philox(_Key(seed, position), counter=counter)  # type: ignore[arg-type]  # its stub is too narrow
    return bits.random_raw(count)  # uint64


class _Key(ISeedSequence):
    """Hands Philox its key. Given as `key`, numpy would first gather entropy for a seed that it then drops."""

    def __init__(self, seed: int, position: int) -> None:
        self._words = np.array([seed, position], dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint32) -> NDArray[np.uint64]:
        assert n_words == 2
        return self._words


class Noise:
    """The noise of one picture, kept for what is sampled again: the rows last used, of `MAX_KEPT_VALUES` in all."""

    def __init__(self, seed: int, vocab_size: int) -> None:
        self._num_kept = max(1, MAX_KEPT_VALUES // vocab_size)
        self._row = lru_cache(self._num_kept)(partial(gumbel, seed, vocab_size=vocab_size))

    def at(self, position: int) -> Logits:
        """gumbel(seed, position): (V,), to be read only."""
        return self._row(position)

    def rows(self, positions: Iterable[int]) -> Logits:
        """The noise of several positions: (n, V)."""
        return np.stack([self._row(position) for position in positions])

    def prepare(self, start: int, end: int) -> None:
        """Compute the rows of [start, end) now, as many as can be kept."""
        for position in range(start, min(end, start + self._num_kept)):
            self._row(position)


def keep_likely(logits: Logits, top_k: int, top_p: float) -> Logits:
    """Logits (V,) with −inf outside top-k, then outside top-p: the field's order, after temperature.

    Top-k keeps ties with the k-th. Top-p keeps the smallest set of most likely tokens whose probability reaches
    top_p, at least one. top_k 0 and top_p 1 keep everything.
    """
    if 0 < top_k < logits.size:
        kth = np.partition(logits, -top_k)[-top_k]
        logits = np.where(logits < kth, np.float32(-np.inf), logits)
    if top_p < 1.0:
        order = np.argsort(-logits, kind="stable")
        weights = np.exp(logits[order] - logits[order[0]], dtype=np.float64)
        before = np.concatenate([[0.0], np.cumsum(weights)[:-1]])
        dropped = order[before >= top_p * weights.sum()]
        logits = logits.copy()
        logits[dropped[dropped != order[0]]] = -np.inf
    return logits


def filtered(logits: Logits, sampling: Sampling) -> Logits:
    """Logits (V,) after temperature, top-k and top-p, as in LlamaGen and transformers: what noise is added to.

    Greedy has neither temperature nor noise: the logits as they are.
    """
    if sampling.temperature == 0:
        return logits
    scaled = logits / np.float32(max(sampling.temperature, MIN_TEMPERATURE))
    return keep_likely(scaled, sampling.top_k, sampling.top_p)


def perturbed(logits: Logits, position: int, sampling: Sampling, noise: Noise | None = None) -> Logits:
    """Filtered logits + gumbel(seed, position): (V,), a new array; its arg-max is the token of the position.

    noise: the seed's, if it is kept.
    """
    scores = np.array(filtered(logits, sampling), np.float32)
    if sampling.temperature > 0:
        scores += noise.at(position) if noise else gumbel(sampling.seed, position, scores.size)
    return scores


def sample(logits: Logits, position: int, sampling: Sampling, noise: Noise | None = None) -> Sample:
    """Sample the token of a position: arg-max of filtered logits / temperature + gumbel(seed, position).

    logits: float32 (V,), finite; noise: the seed's, if it is kept. A lead tells nothing of a near tie at the *cut* of
    top-k or top-p.
    """
    return strongest(perturbed(logits, position, sampling, noise))


def strongest(scores: Logits) -> Sample:
    """The arg-max of scores (V,), which it spoils, and its lead."""
    token = int(scores.argmax())
    best = float(scores[token])
    scores[token] = -np.inf
    lead = best - float(scores[scores.argmax()])  # a third of the time of max()
    return Sample(token, lead)


class Samples(NamedTuple):
    """The tokens of several positions."""

    tokens: NDArray[np.int64]
    """(n,)"""
    leads: Logits
    """(n,) as `Sample.lead`."""


def sample_rows(logits: Logits, positions: Sequence[int], sampling: Sampling, noise: Noise) -> Samples:
    """`sample` for logits (n, V) at n positions at once: the same tokens, whatever n is; leads in float32."""
    if sampling.temperature == 0:
        scores = np.array(logits, np.float32)
    else:
        scores = logits / np.float32(max(sampling.temperature, MIN_TEMPERATURE))  # (n, V)
        if 0 < sampling.top_k < scores.shape[1] or sampling.top_p < 1:
            for row in range(len(scores)):
                scores[row] = keep_likely(scores[row], sampling.top_k, sampling.top_p)
        scores += noise.rows(positions)
    every = np.arange(len(scores))
    tokens = scores.argmax(1)
    best = scores[every, tokens]
    scores[every, tokens] = -np.inf
    return Samples(tokens, best - scores[every, scores.argmax(1)])
