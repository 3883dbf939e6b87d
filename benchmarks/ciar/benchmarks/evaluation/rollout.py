"""Roll-outs in lock-step: many pictures of a pair at once, in one process, and what the real system never gets to see.

In: pictures and a `Play` (a gate, features or not). Out: a `Table`: the tokens that device and cloud would commit, and
for every drafted position both laws compared *in context*, that is after what the collaboration had committed. Built
of the parts that the two processes run; what is final depends on decided history alone (docs/design.md), so going
position by position gives the same tokens as drafting ahead over a network. Knows no network and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ciar.benchmarks.evaluation.pictures import Picture
from ciar.benchmarks.gates import Doubt, entropy, margin, max_probability, outside_set, random_doubt
from ciar.cloud_server.batch import Segment
from ciar.cloud_server.runner import ModelRunner, load_transformer
from ciar.device_client.drafter import NAME as DRAFTER
from ciar.device_client.drafter import Drafter, Drafts
from ciar.device_client.gates import Gate, Scores, make_gate
from ciar.shared.bundle import Manifest, load_manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.sampling import MIN_TEMPERATURE, keep_likely, sample
from ciar.shared.types import Sampling
from ciar.shared.verification import total_variation

Logits = NDArray[np.float32]

NUM_LANES = 32
"""Pictures drawn at a time."""

PAPER_VOCAB_SIZE, PAPER_SETS = 16_384, (100, 300)
"""The paper's vocabulary and the sizes k of its discrete solution sets; another pair's are in proportion."""

_FLOAT16_MAX = float(np.finfo(np.float16).max)
_RANDOM_STREAM = 1 << 63  # keeps the random doubt's numbers apart from the sampler's noise


@dataclass(frozen=True)
class Play:
    """How tokens are decided."""

    name: str
    gate: str
    """As `make_gate` reads it."""
    send_features: bool = False
    """Whether the cloud gets the interval features of tokens that the device decided."""


def plays(manifest: Manifest, gate: str | None = None) -> tuple[Play, ...]:
    """The plays of an evaluation; `gate` in place of the pair's own.

    "cloud" asks about every token, so its tokens are those of the cloud alone and of the lossless mode, and its table
    is the drafter teacher-forced on sequences that the cloud wrote.
    """
    chosen = manifest.defaults.gate if gate is None else gate
    return (
        Play("cloud", "always"),
        Play("ciar", chosen),
        Play("ciar, features", chosen, send_features=True),
        Play("device", "never"),
    )


def distribution(logits: Logits, sampling: Sampling) -> NDArray[np.float64]:
    """The distribution (V,) that `sample` samples from, as probabilities; logits (V,)."""
    if sampling.temperature == 0:
        weights = np.zeros(logits.size)
        weights[logits.argmax()] = 1.0
        return weights
    scaled = keep_likely(
        logits / np.float32(max(sampling.temperature, MIN_TEMPERATURE)), sampling.top_k, sampling.top_p
    )
    weights = np.exp(scaled - scaled.max(), dtype=np.float64)
    return np.asarray(weights / weights.sum())


@dataclass(frozen=True)
class Table:
    """One row per picture, one column per position; what was not drafted (the prefix) is −1, False or nan."""

    num_prefix: int
    """The cloud wrote so many tokens first."""
    group: NDArray[np.int64]
    """(N,) repetition that a picture belongs to."""
    tokens: NDArray[np.int64]
    """(N, T) committed."""
    drafted: NDArray[np.int64]
    """(N, T) the device's x."""
    cloud: NDArray[np.int64]
    """(N, T) the cloud's y with the same noise, after the same history."""
    asked: NDArray[np.bool_]
    """(N, T)"""
    near_tie: NDArray[np.bool_]
    """(N, T) the cloud's token won by less than the near-tie tolerance."""
    tv: NDArray[np.float32]
    """(N, T) total variation between the two laws, at the sampling temperature."""
    greedy_agree: NDArray[np.bool_]
    """(N, T) both laws have the same most likely token."""
    scores: Mapping[str, NDArray[np.float32]]
    """(N, T) each; larger where the drafter is less sure."""

    def save(self, path: Path) -> None:
        """Write as .npz, whole or not at all."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
        columns |= {f"score {name}": values for name, values in self.scores.items()}
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.savez_compressed(file, num_prefix=self.num_prefix, **columns)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read what `save` wrote."""
        with np.load(path) as held:
            scores = {name.removeprefix("score "): held[name] for name in held.files if name.startswith("score ")}
            return cls(int(held["num_prefix"]), **{name: held[name] for name in _COLUMNS}, scores=scores)


_COLUMNS = ("group", "tokens", "drafted", "cloud", "asked", "near_tie", "tv", "greedy_agree")


class Runner(Protocol):
    """The cloud's model."""

    def extend(self, segments: Sequence[Segment]) -> list[Logits]: ...


class Pair(NamedTuple):
    """Both sides of a bundle, loaded: a slot of the cloud and a drafter (it has a cache) for each lane."""

    manifest: Manifest
    vocabulary: CaptionVocabulary
    runner: Runner
    drafters: Sequence[Drafts]


def load_pair(bundle: Path, *, num_lanes: int = NUM_LANES, num_threads: int = 1) -> Pair:
    """Load a bundle for roll-outs. Raises InvalidRequest or PairMismatch if it is not a whole one."""
    manifest = load_manifest(bundle)
    return Pair(
        manifest,
        CaptionVocabulary.load(bundle / "captions.json"),
        ModelRunner(load_transformer(bundle), num_lanes, num_threads),
        [Drafter(bundle / DRAFTER, manifest) for _ in range(num_lanes)],
    )


def default_sampling(manifest: Manifest) -> Sampling:
    """The pair's own settings; each picture brings its seed."""
    return Sampling(**manifest.defaults.model_dump(include={"guidance", "temperature", "top_k", "top_p"}))


def roll_out(
    pair: Pair,
    pictures: Sequence[Picture],
    play: Play,
    sampling: Sampling,
    on_position: Callable[[int], None] = lambda num_pictures: None,
) -> Table:
    """Draw the pictures as many at a time as the pair has lanes.

    on_position is told after every position how many pictures have got one token further. Raises InvalidRequest for
    a gate or a prompt that the pair does not know.
    """
    num_prefix = int(pair.manifest.defaults.prefix_rate * pair.manifest.num_tokens + 1e-9)
    lanes: list[_Lane] = []
    for first in range(0, len(pictures), len(pair.drafters)):
        batch = [
            _Lane(slot, picture, play, sampling, pair, num_prefix)
            for slot, picture in enumerate(pictures[first : first + len(pair.drafters)])
        ]
        for position in range(pair.manifest.num_tokens):
            logits = pair.runner.extend([lane.segment(position) for lane in batch])
            for lane, rows in zip(batch, logits, strict=True):
                lane.decide(position, rows[0])
            on_position(len(batch))
        lanes += batch
    group = np.array([picture.group for picture in pictures])
    return _gather(lanes, group, num_prefix)


class _Lane:
    """One picture in the making: what device and cloud know of it, and what is noted."""

    def __init__(
        self, slot: int, picture: Picture, play: Play, sampling: Sampling, pair: Pair, num_prefix: int
    ) -> None:
        manifest = pair.manifest
        self._slot = slot
        self._sampling = sampling.model_copy(update={"seed": picture.seed})
        self._num_prefix = num_prefix
        self._send_features = play.send_features
        self._condition = pair.vocabulary.encode(picture.prompt)  # (C,)
        self._features = np.zeros((manifest.num_tokens, manifest.feature_dim), np.float32)  # (T, r)
        self._drafter = pair.drafters[slot]
        self._drafter.reset(self._condition.tolist())
        self._gate: Gate = make_gate(play.gate, manifest)
        self._doubts = _doubts(manifest, picture.seed)
        num_tokens = manifest.num_tokens
        self.columns: dict[str, NDArray[Any]] = {
            "tokens": np.zeros(num_tokens, np.int64),
            "drafted": np.full(num_tokens, -1, np.int64),
            "cloud": np.zeros(num_tokens, np.int64),
            "asked": np.zeros(num_tokens, np.bool_),
            "near_tie": np.zeros(num_tokens, np.bool_),
            "tv": np.full(num_tokens, np.nan, np.float32),
            "greedy_agree": np.zeros(num_tokens, np.bool_),
        }  # (T,) each
        names = ("uncertainty", "ambiguity", "disparity", *self._doubts)
        self.scores = {name: np.full(num_tokens, np.nan, np.float32) for name in names}  # (T,) each

    def segment(self, position: int) -> Segment:
        """What the cloud computes for the law of a position: the row of the token before it."""
        first = max(0, position - 1)
        features = self._features[first:position]  # (k, r), k is 0 or 1
        return Segment(
            slot=self._slot,
            guidance=self._sampling.guidance,
            condition=self._condition,
            start=0 if position == 0 else len(self._condition) + first,
            tokens=self.columns["tokens"][first:position],
            features=features if features.any() else None,
            wanted=np.array([position]),
        )

    def decide(self, position: int, logits: Logits) -> None:
        """Commit the token of a position, of which the cloud's logits are (V,)."""
        columns = self.columns
        own = sample(logits, position, self._sampling)
        columns["tokens"][position] = columns["cloud"][position] = own.token
        columns["near_tie"][position] = own.is_near_tie
        if position >= self._num_prefix:
            self._draft(position, logits)

    def _draft(self, position: int, logits: Logits) -> None:
        """Let the device draft and decide, or ask: then the cloud's token stays."""
        columns, known = self.columns, self.columns["tokens"].copy()
        known[position] = 0  # the device does not know it
        start = 0 if position == self._num_prefix else position
        proposals = self._drafter.evaluate(known, start, position + 1)
        center, scores = proposals.centers[-1], proposals.scores(position - start)
        drafted = sample(center, position, self._sampling).token
        asked = self._gate.must_verify(position, scores)
        columns["drafted"][position] = drafted
        columns["asked"][position] = asked
        self._compare(position, logits, center, scores)
        if asked:
            if drafted != columns["cloud"][position]:
                self._gate.rollback(position + 1)
            return
        columns["tokens"][position] = drafted
        if self._send_features:
            feature = np.clip(proposals.features[-1], -_FLOAT16_MAX, _FLOAT16_MAX)
            self._features[position] = feature.astype(np.float16)  # as it crosses the wire

    def _compare(self, position: int, logits: Logits, center: Logits, seen: Scores) -> None:
        columns, scores = self.columns, self.scores
        p, q = distribution(logits, self._sampling), distribution(center, self._sampling)  # (V,) cloud, device
        columns["tv"][position] = total_variation(p, q)
        columns["greedy_agree"][position] = logits.argmax() == center.argmax()
        for name in ("uncertainty", "ambiguity", "disparity"):
            scores[name][position] = getattr(seen, name)
        for name, doubt in self._doubts.items():
            scores[name][position] = doubt(position, seen)


def _doubts(manifest: Manifest, seed: int) -> dict[str, Doubt]:
    """What the gate is compared to."""
    sets = {f"set of {size}": outside_set(size) for size in set_sizes(manifest.vocab_size)}
    return {
        "entropy": entropy,
        "max probability": max_probability,
        "margin": margin,
        **sets,
        "random": random_doubt(seed ^ _RANDOM_STREAM, manifest.num_tokens),
    }


def set_sizes(vocab_size: int) -> tuple[int, ...]:
    """Sizes of the discrete solution sets for a vocabulary: the paper's 100 and 300 of 16 384, in proportion."""
    return tuple(max(1, round(size * vocab_size / PAPER_VOCAB_SIZE)) for size in PAPER_SETS)


def _gather(lanes: Sequence[_Lane], group: NDArray[np.int64], num_prefix: int) -> Table:
    columns = {name: np.stack([lane.columns[name] for lane in lanes]) for name in lanes[0].columns}
    scores = {name: np.stack([lane.scores[name] for lane in lanes]) for name in lanes[0].scores}
    return Table(num_prefix, group, **columns, scores=scores)
