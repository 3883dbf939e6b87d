"""The drafter: one transformer layer with the Inter-Head, an ONNX graph with a cache that is written in place.

In: the tokens known so far and a position. Out: centre logits, scores and interval feature of that position. It neither
samples nor decides. Row t of the cache describes the tokens before t, so after a rollback one simply goes on at the
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


class Proposals(NamedTuple):
    """The drafter's view of n positions. The arrays are the graph's own and hold until the next run."""

    centers: NDArray[np.float32]
    """(n, V) logits of the guided distribution."""
    ambiguity: NDArray[np.float32]
    """(n,)"""
    disparity: NDArray[np.float32]
    """(n,)"""
    uncertainty: NDArray[np.float32]
    """(n,)"""
    features: NDArray[np.float32]
    """(n, r)"""

    def scores(self, row: int) -> Scores:
        """What gates look at, of one row."""
        return Scores(
            float(self.ambiguity[row]), float(self.disparity[row]), float(self.uncertainty[row]), self.centers[row]
        )


class Drafts(Protocol):
    """What the decoding loop needs of a drafter."""

    def reset(self, condition: Sequence[int]) -> None:
        """Begin a picture; condition: (C,) phrase ids."""
        ...

    def evaluate(self, tokens: Tokens, start: int, end: int) -> Proposals:
        """Look at positions [start, end) in one run; tokens (T,) before each are known, or guesses.

        Row t of the cache describes the tokens before t, and is right for all rows before `start`.
        """
        ...


class Drafter:
    """`Drafts` by ONNX Runtime. Buffers are bound once: a run moves a few ids."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Raises PairMismatch if the graph does not fit the manifest."""
        num_tokens, vocab_size = manifest.num_tokens, manifest.vocab_size
        self._session = load_graph(path, NAME, {"neighbours", "start", "condition", "cache_key", "cache_value"})
        require_shape(self._session, "cache_key", manifest.drafter_cache_shape, NAME)
        require_shape(self._session, "neighbours", [None, len(manifest.drafter_neighbours)], NAME)
        self._index = neighbour_index(manifest.grid_height, manifest.grid_width, manifest.drafter_neighbours)  # (T, K)
        self._known = np.full(num_tokens + 1, vocab_size, np.int64)  # (T + 1,) the last one is "none"
        self._start = np.zeros(1, np.int64)
        self._condition = np.zeros(manifest.caption_length, np.int64)
        self._vocab_size, self._feature_dim = vocab_size, manifest.feature_dim
        self._bindings: dict[int, tuple[ort.IOBinding, NDArray[np.int64], Proposals]] = {}
        self._caches = {
            name: np.zeros(manifest.drafter_cache_shape, np.float32) for name in ("cache_key", "cache_value")
        }
        self._cache_values = {name: _shared(array) for name, array in self._caches.items()}

    def reset(self, condition: Sequence[int]) -> None:
        self._condition[:] = condition
        for cache in self._caches.values():
            cache.fill(0)  # rows are masked until written, but 0 · NaN would not be

    def evaluate(self, tokens: Tokens, start: int, end: int) -> Proposals:
        first, last = start, end
        if end - start == 1:  # a single row takes other kernels, whose last bits differ
            first, last = (start - 1, end) if start else (start, end + 1)
        binding, neighbours, outputs = self._bound(last - first)
        self._known[:-1] = tokens
        np.take(self._known, self._index[first:last], out=neighbours)
        self._start[0] = first
        self._session.run_with_iobinding(binding)
        if last - first == end - start:
            return outputs
        return Proposals(*(array[start - first :][:1] for array in outputs))

    def _bound(self, num_rows: int) -> tuple[ort.IOBinding, NDArray[np.int64], Proposals]:
        """Buffers for runs of so many rows, bound at their first use."""
        if num_rows not in self._bindings:
            neighbours = np.zeros((num_rows, self._index.shape[1]), np.int64)
            outputs: dict[str, NDArray[np.float32]] = {"center": np.zeros((num_rows, self._vocab_size), np.float32)}
            outputs |= {name: np.zeros(num_rows, np.float32) for name in ("ambiguity", "disparity", "uncertainty")}
            outputs["feature"] = np.zeros((num_rows, self._feature_dim), np.float32)
            binding = self._session.io_binding()
            self._bind_state(binding)
            binding.bind_ortvalue_input("neighbours", _shared(neighbours))
            binding.bind_ortvalue_input("start", _shared(self._start))
            for name, array in outputs.items():
                binding.bind_ortvalue_output(name, _shared(array))
            self._bindings[num_rows] = binding, neighbours, Proposals(*outputs.values())
        return self._bindings[num_rows]

    def _bind_state(self, binding: ort.IOBinding) -> None:
        """The condition, and each cache as input and output in one place."""
        binding.bind_ortvalue_input("condition", _shared(self._condition))
        for name, value in self._cache_values.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(f"new_{name}", value)


def _shared(array: NDArray[np.generic]) -> ort.OrtValue:
    """A value over the array's own memory: on the CPU nothing is copied. The array must outlive it."""
    return ort.OrtValue.ortvalue_from_numpy(array)
