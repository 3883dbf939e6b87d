"""A model without a model: its distribution is a pure function of everything a slot's cache holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ciar.cloud_server.batch import Segment
from ciar.cloud_server.session import Admitted, Reply, Session
from ciar.cloud_server.window import WindowPolicy
from ciar.shared.types import Draft, Limits, Sampling, Verify

T, V, C, R = 12, 8, 2, 3
"""Tokens of a picture, vocabulary, caption length, feature rank."""

GREEDY = Sampling(temperature=0.0)


def logits_after(
    condition: NDArray[np.int64], tokens: NDArray[np.int64], features: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Logits (V,) of the token after `tokens` (n,) with `features` (n, R)."""
    history = b"|".join(
        [condition.astype("<i8").tobytes(), tokens.astype("<i8").tobytes(), features.astype("<f4").tobytes()]
    )
    seed = int.from_bytes(hashlib.sha256(history).digest()[:8], "little")
    return np.random.default_rng(seed).normal(scale=3, size=V).astype(np.float32)


def own_picture(condition: NDArray[np.int64], start: Sequence[int] = ()) -> list[int]:
    """What greedy decoding of those logits gives after `start`, without features."""
    tokens = list(start)
    while len(tokens) < T:
        logits = logits_after(condition, np.array(tokens, np.int64), np.zeros((len(tokens), R), np.float32))
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
        predicted = segment.wanted + C - 1
        assert (predicted >= segment.start).all(), "a wanted position is predicted by a row that is not in the pass"
        assert (predicted < segment.end).all(), "a wanted position is predicted by a row that is not in the pass"
        return np.stack([logits_after(condition, tokens[:t], features[:t]) for t in segment.wanted])


def admitted(
    session_id: str = "s",
    *,
    verify: Verify = Verify.MARKED,
    num_prefix_tokens: int = 3,
    max_window: int = 64,
    history: Sequence[int] = (),
    sampling: Sampling = GREEDY,
    condition: Sequence[int] = (1, 2),
) -> Admitted:
    return Admitted(
        session_id=session_id,
        condition=np.array(condition, np.int64),
        sampling=sampling,
        verify=verify,
        num_prefix_tokens=num_prefix_tokens,
        max_window=max_window,
        history=np.array(history, np.int64),
    )


def make_session(
    admitted: Admitted, reply: Reply, *, slot: int = 0, chunk: int = 4, policy: WindowPolicy | None = None
) -> Session:
    """A session for pictures of `FakeRunner`."""
    return Session(
        admitted,
        slot,
        reply,
        num_tokens=T,
        vocab_size=V,
        chunk=chunk,
        limits=Limits(),
        policy=policy or WindowPolicy(),
    )


def draft(
    seq: int, start: int, tokens: Sequence[int], *, marked: Sequence[int] | None = None, num_verdicts: int = 0
) -> Draft:
    """marked: offsets of the tokens to be verified (all, if not given)."""
    offsets = np.arange(len(tokens))
    to_verify = np.ones(len(tokens), np.bool_) if marked is None else np.isin(offsets, marked)
    return Draft(seq, start, np.array(tokens, np.int64), to_verify, num_verdicts)
