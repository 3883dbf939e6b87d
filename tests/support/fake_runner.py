"""A model without a model: its law is a pure function of everything a slot's cache holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ciar.cloud_server.batch import Segment
from ciar.cloud_server.session import Admitted
from ciar.shared.types import COUPLED, Acceptance, Block, Sampling

T, V, C, R = 12, 8, 2, 3
"""Tokens of a picture, vocabulary, caption length, feature rank."""

GREEDY = Sampling(temperature=0.0)


def law(condition: NDArray[np.int64], tokens: NDArray[np.int64], features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (V,) of the token after `tokens` (n,) with `features` (n, R)."""
    history = b"|".join(
        [condition.astype("<i8").tobytes(), tokens.astype("<i8").tobytes(), features.astype("<f4").tobytes()]
    )
    seed = int.from_bytes(hashlib.sha256(history).digest()[:8], "little")
    return np.random.default_rng(seed).normal(scale=3, size=V).astype(np.float32)


def own_picture(condition: NDArray[np.int64], start: Sequence[int] = ()) -> list[int]:
    """What greedy decoding of the law gives after `start`, without features."""
    tokens = list(start)
    while len(tokens) < T:
        logits = law(condition, np.array(tokens, np.int64), np.zeros((len(tokens), R), np.float32))
        tokens.append(int(logits.argmax()))
    return tokens


class FakeRunner:
    """Keeps the rows of each slot as a real cache would, and checks that segments join on."""

    def __init__(self) -> None:
        self.passes: list[list[Segment]] = []
        self._slots: dict[int, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = {}

    def extend(self, segments: Sequence[Segment]) -> list[NDArray[np.float32]]:
        self.passes.append(list(segments))
        assert len({segment.slot for segment in segments}) == len(segments)
        return [self._extend(segment) for segment in segments]

    def _extend(self, segment: Segment) -> NDArray[np.float32]:
        assert segment.num_rows > 0
        if segment.start == 0:
            condition, tokens, features = segment.condition, np.zeros(0, np.int64), np.zeros((0, R), np.float32)
        else:
            condition, tokens, features = self._slots[segment.slot]
            first = segment.start - C
            assert 0 <= first <= len(tokens), "the segment leaves a gap in the cache"
            tokens, features = tokens[:first], features[:first]
        new = np.zeros((len(segment.tokens), R), np.float32) if segment.features is None else segment.features
        tokens, features = np.concatenate([tokens, segment.tokens]), np.concatenate([features, new])
        self._slots[segment.slot] = (condition, tokens, features)
        if segment.parents is not None:
            return self._tree(segment, condition, tokens, features)
        predicted = segment.wanted + C - 1
        assert (predicted >= segment.start).all(), "a wanted law is predicted by a row that is not in the pass"
        assert (predicted < segment.end).all(), "a wanted law is predicted by a row that is not in the pass"
        return np.stack([law(condition, tokens[:t], features[:t]) for t in segment.wanted])

    def _tree(
        self,
        segment: Segment,
        condition: NDArray[np.int64],
        tokens: NDArray[np.int64],
        features: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The laws behind the last token before the tree, and behind each node."""
        assert segment.parents is not None
        start = len(tokens) - len(segment.parents)
        assert segment.wanted.tolist() == list(range(start, len(tokens) + 1))
        assert segment.start < C + start, "the row before the tree must be in the pass"
        laws = [law(condition, tokens[:start], features[:start])]
        for node in range(len(segment.parents)):
            path = [node]
            while segment.parents[path[0]] >= 0:
                path.insert(0, int(segment.parents[path[0]]))
            rows = [*range(start), *(start + step for step in path)]
            laws.append(law(condition, tokens[rows], features[rows]))
        return np.stack(laws)


def admitted(
    session_id: str = "s",
    *,
    write_until: int = 3,
    history: Block | None = None,
    sampling: Sampling = GREEDY,
    condition: Sequence[int] = (1, 2),
    chunk: int = T,
    collaborative: bool = True,
    acceptance: Acceptance = COUPLED,
    carry_on: bool = False,
) -> Admitted:
    return Admitted(
        session_id=session_id,
        condition=np.array(condition, np.int64),
        sampling=sampling,
        history=history or Block.empty(R),
        write_until=write_until,
        chunk=chunk,
        collaborative=collaborative,
        acceptance=acceptance,
        carry_on=carry_on,
    )


def block(
    tokens: Sequence[int],
    start: int,
    *,
    asked: Sequence[int] | None = None,
    features: dict[int, float] | None = None,
    laws: NDArray[np.float16] | None = None,
) -> Block:
    """asked: offsets of the asked tokens (all, if not given); features: offset -> a value that fills the row."""
    features = features or {}
    offsets = np.arange(len(tokens))
    featured = np.isin(offsets, list(features))
    return Block(
        start,
        np.array(tokens, np.int64),
        np.ones(len(tokens), np.bool_) if asked is None else np.isin(offsets, asked),
        featured,
        np.array([[features[i]] * R for i in offsets[featured]], np.float16).reshape(-1, R),
        laws,
    )
