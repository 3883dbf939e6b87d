"""A pair without models: the fake cloud, and a drafter that knows its distribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ciar.benchmarks.evaluation.pictures import Picture
from ciar.benchmarks.evaluation.rollout import Pair
from ciar.device_client.drafter import Proposals
from ciar.shared.bundle import Manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.types import Sampling, Tokens
from tests.support.fake_runner import C, FakeRunner, R, T, V, logits_after

SAMPLING = Sampling(temperature=1.0)


class LikeTheCloud:
    """A drafter whose distribution is the fake cloud's own, tempered by `sharpness`; it is sure of odd positions."""

    def __init__(self, sharpness: float = 1.0) -> None:
        self._sharpness = sharpness
        self._condition = np.zeros(C, np.int64)

    def reset(self, condition: Sequence[int]) -> None:
        self._condition = np.array(condition, np.int64)

    def evaluate(self, tokens: Tokens, start: int, end: int) -> Proposals:
        positions = range(start, end)
        centers = [logits_after(self._condition, tokens[:p], np.zeros((p, R), np.float32)) for p in positions]
        score = np.array([p % 2 == 0 for p in positions], np.float32)
        features = np.full((end - start, R), 0.5, np.float32)
        return Proposals(self._sharpness * np.stack(centers), score, score, score, features)


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
