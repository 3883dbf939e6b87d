"""The drafter: one transformer layer with the Inter-Head, an ONNX graph with a cache that is written in place.

In: the tokens known so far and a position. Out: centre logits, scores and interval feature of that position. It neither
draws nor decides. Row t of the cache describes the tokens before t, so after a rollback one simply goes on at the
position that changed: later rows are masked in the graph until they are written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ciar.device_client.gates import Scores
from ciar.device_client.graphs import load_graph, require_shape
from ciar.shared.bundle import Manifest
from ciar.shared.grid import neighbour_index
from ciar.shared.types import Tokens

NAME = "drafter.onnx"


class Proposal(NamedTuple):
    """The drafter's view of one token. The arrays are the graph's own and hold until the next step."""

    center: NDArray[np.float32]
    """(V,) logits of the guided law."""
    scores: Scores
    feature: NDArray[np.float32]
    """(r,)"""


class Drafts(Protocol):
    """What the decoding loop needs of a drafter."""

    def reset(self, condition: Sequence[int]) -> None:
        """Begin a picture; condition: (C,) phrase ids."""
        ...

    def read(self, tokens: Tokens, start: int, end: int) -> None:
        """Make rows [start, end) of the cache right, for tokens (T,) known before `end`."""
        ...

    def step(self, tokens: Tokens, position: int) -> Proposal:
        """Look at a position; tokens (T,) are known before it, and the cache is right before it."""
        ...


class Drafter:
    """`Drafts` by ONNX Runtime. Buffers are bound once: a step moves a few ids and runs the graph."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Raises PairMismatch if the graph does not fit the manifest."""
        num_tokens, vocab_size = manifest.num_tokens, manifest.vocab_size
        self._session = load_graph(path, NAME, {"neighbours", "start", "condition", "cache_key", "cache_value"})
        require_shape(self._session, "cache_key", manifest.drafter_cache_shape, NAME)
        require_shape(self._session, "neighbours", [None, len(manifest.drafter_neighbours)], NAME)
        self._index = neighbour_index(manifest.grid_height, manifest.grid_width, manifest.drafter_neighbours)  # (T, K)
        self._known = np.full(num_tokens + 1, vocab_size, np.int64)  # (T + 1,) the last one is "none"
        self._neighbours = np.zeros((1, len(manifest.drafter_neighbours)), np.int64)
        self._start = np.zeros(1, np.int64)
        self._condition = np.zeros(manifest.caption_length, np.int64)
        self._center = np.zeros((1, vocab_size), np.float32)
        self._scores = {name: np.zeros(1, np.float32) for name in ("ambiguity", "disparity", "uncertainty")}
        self._feature = np.zeros((1, manifest.feature_dim), np.float32)
        self._caches = {
            name: np.zeros(manifest.drafter_cache_shape, np.float32) for name in ("cache_key", "cache_value")
        }
        self._cache_values = {name: _shared(array) for name, array in self._caches.items()}
        self._step = self._bind_step()

    def reset(self, condition: Sequence[int]) -> None:
        self._condition[:] = condition
        for cache in self._caches.values():
            cache.fill(0)  # rows are masked until written, but 0 · NaN would not be

    def read(self, tokens: Tokens, start: int, end: int) -> None:
        self._known[:-1] = tokens
        neighbours = self._known[self._index[start:end]]  # (n, K)
        first = np.array([start])
        binding = self._session.io_binding()
        self._bind_state(binding)
        binding.bind_ortvalue_input("neighbours", _shared(neighbours))
        binding.bind_ortvalue_input("start", _shared(first))
        self._session.run_with_iobinding(binding)

    def step(self, tokens: Tokens, position: int) -> Proposal:
        self._known[:-1] = tokens
        self._neighbours[0] = self._known[self._index[position]]
        self._start[0] = position
        self._session.run_with_iobinding(self._step)
        ambiguity, disparity, uncertainty = (array.item() for array in self._scores.values())
        center = self._center[0]
        return Proposal(center, Scores(ambiguity, disparity, uncertainty, center), self._feature[0])

    def _bind_step(self) -> ort.IOBinding:
        binding = self._session.io_binding()
        self._bind_state(binding)
        binding.bind_ortvalue_input("neighbours", _shared(self._neighbours))
        binding.bind_ortvalue_input("start", _shared(self._start))
        for name, array in {"center": self._center, "feature": self._feature, **self._scores}.items():
            binding.bind_ortvalue_output(name, _shared(array))
        return binding

    def _bind_state(self, binding: ort.IOBinding) -> None:
        """The condition, and each cache as input and output in one place."""
        binding.bind_ortvalue_input("condition", _shared(self._condition))
        for name, value in self._cache_values.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(f"new_{name}", value)


def _shared(array: NDArray[np.generic]) -> ort.OrtValue:
    """A value over the array's own memory: on the CPU nothing is copied. The array must outlive it."""
    return ort.OrtValue.ortvalue_from_numpy(array)
