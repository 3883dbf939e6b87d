"""A pair without models: the fake cloud, and a drafter that knows its law."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ciar.benchmarks.evaluation.pictures import Picture
from ciar.benchmarks.evaluation.rollout import Pair
from ciar.device_client.drafter import Proposal
from ciar.device_client.gates import Scores
from ciar.shared.bundle import Manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.types import Sampling, Tokens
from tests.support.fake_runner import C, FakeRunner, R, T, V
from tests.support.fake_runner import law as fake_law

SAMPLING = Sampling(temperature=1.0)


class LikeTheCloud:
    """A drafter whose law is the fake cloud's own, tempered by `sharpness`; it is sure of odd positions."""

    def __init__(self, sharpness: float = 1.0) -> None:
        self._sharpness = sharpness
        self._condition = np.zeros(C, np.int64)

    def reset(self, condition: Sequence[int]) -> None:
        self._condition = np.array(condition, np.int64)

    def read(self, tokens: Tokens, start: int, end: int) -> None:
        pass

    def step(self, tokens: Tokens, position: int) -> Proposal:
        center = self._sharpness * fake_law(self._condition, tokens[:position], np.zeros((position, R), np.float32))
        score = float(position % 2 == 0)
        return Proposal(center, Scores(score, score, score, center), np.full(R, 0.5, np.float32))


def fake_pair(sharpness: float = 1.0, num_lanes: int = 2) -> Pair:
    quantiles = tuple(np.linspace(0, 1, 11).tolist())
    manifest = Manifest.model_validate(
        {
            "format": 1, "name": "fake", "version": "1", "vocab_size": V, "grid_height": 3, "grid_width": T // 3,
            "caption_length": C, "feature_dim": R, "image_height": 3, "image_width": 4, "drafter_heads": 1,
            "drafter_head_dim": 1, "defaults": {"prefix_rate": 0.25}, "uncertainty_quantiles": quantiles,
            "ambiguity_quantiles": quantiles, "files": {},
        }
    )  # fmt: skip
    vocabulary = CaptionVocabulary(length=C, phrases=("red", "heart"))
    return Pair(manifest, vocabulary, FakeRunner(), [LikeTheCloud(sharpness) for _ in range(num_lanes)])


def three() -> list[Picture]:
    return [Picture("red heart", seed, seed, (0, 0, 0, 0)) for seed in range(3)]
