"""A drafter without a model: a pure function of the tokens before a position, which checks its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ciar.device_client.drafter import Proposals
from ciar.shared.types import Tokens

Logits = NDArray[np.float32]


class HashDrafter:
    """`Drafts` that remembers which tokens its rows describe, as a cache does, and fails where a row is stale.

    cloud_logits: tokens before a position (n,) -> (V,); with chance `agreement` it knows
    them. checks_rows: not where drafts are first guesses only.
    """

    def __init__(
        self,
        vocab_size: int,
        cloud_logits: Callable[[Tokens], Logits],
        agreement: float = 0.6,
        *,
        checks_rows: bool = True,
    ) -> None:
        self._vocab_size, self._cloud_logits, self._agreement = vocab_size, cloud_logits, agreement
        self._checks_rows = checks_rows
        self._rows: list[tuple[int, ...]] = []
        self.num_runs = 0

    def reset(self, condition: Sequence[int]) -> None:
        self._rows = []

    def evaluate(self, tokens: Tokens, start: int, end: int) -> Proposals:
        """Rows before `start` must describe the tokens as they are now."""
        self.num_runs += 1
        assert start <= len(self._rows), "a gap in the cache"
        del self._rows[start:]
        for position, row in enumerate(self._rows if self._checks_rows else ()):
            assert row == tuple(tokens[:position].tolist()), f"row {position} is stale"
        seen = [tokens[:position].astype(np.int64) for position in range(start, end)]
        self._rows += [tuple(before.tolist()) for before in seen]
        parts = [self._look(before) for before in seen]
        centers, ambiguity, uncertainty = zip(*parts, strict=True)
        return Proposals(
            np.stack(centers),
            np.array(ambiguity, np.float32),
            np.ones(end - start, np.float32),
            np.array(uncertainty, np.float32),
            np.zeros((end - start, 2), np.float32),
        )

    def _look(self, before: Tokens) -> tuple[Logits, float, float]:
        digest = hashlib.sha256(b"drafter" + before.tobytes()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        knows = rng.uniform() < self._agreement
        own = rng.normal(0, 1.5, self._vocab_size).astype(np.float32)
        return (self._cloud_logits(before) if knows else own), rng.uniform(), rng.uniform()
