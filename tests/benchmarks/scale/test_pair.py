"""The pair of random weights: its shape is LlamaGen's, and the server and the device take it as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ciar.benchmarks.scale.pair import (
    lean_runner,
    pass_bytes,
    random_transformer,
    shape_of,
    write_folder,
)
from ciar.benchmarks.scale.sizes import GRID, MEMORY_GB, SIZES, find_size, require_memory
from ciar.cloud_server.batch import Segment
from ciar.cloud_server.runner import ModelRunner
from ciar.device_client.drafter import Drafter
from ciar.shared.bundle import load_manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import InvalidRequest


@pytest.mark.parametrize(("size", "num_layers", "dim"), [("L", 24, 1024), ("XL", 36, 1280)])
def test_the_shapes_are_those_of_the_paper(size: str, num_layers: int, dim: int) -> None:
    cloud = shape_of(size).cloud
    assert (cloud.num_layers, cloud.dim, cloud.vocab_size) == (num_layers, dim, 16_384)
    assert (cloud.grid_height, cloud.grid_width, cloud.conditioning) == (GRID, GRID, "class")
    assert cloud.feature_dim > 0  # interval features cross the wire


def test_every_size_has_a_shape() -> None:
    assert all(shape_of(size).cloud.num_tokens == GRID * GRID for size in SIZES)


def test_sizes_are_found_in_any_case_and_others_refused_by_name() -> None:
    assert find_size(" xl ") == "XL"
    with pytest.raises(InvalidRequest, match=r"^size: unknown size 'XLL'; did you mean 'X"):
        find_size("XLL")
    with pytest.raises(InvalidRequest, match=r"known are tiny, B, L, XL, XXL"):
        find_size("?")


def test_a_size_that_does_not_fit_is_refused_with_what_it_needs() -> None:
    require_memory("XL", 20.0)
    require_memory("XL", None)
    with pytest.raises(InvalidRequest, match=r"^size: XL needs about 13 GB of memory on a CPU, 3.5 are free"):
        require_memory("XL", 3.5)
    assert MEMORY_GB.keys() == SIZES.keys()


def test_a_lean_runner_computes_what_the_model_did() -> None:
    config = shape_of("tiny").cloud
    segment = Segment(0, 1.75, np.ones(1, np.int64), 0, np.arange(9), None, np.array([3, 9]))
    plain = ModelRunner(random_transformer(config, "cpu"), 1, 1)
    model = random_transformer(config, "cpu")
    num_bytes = pass_bytes(model)
    lean = lean_runner(model, 1, 1)
    np.testing.assert_array_equal(lean.extend([segment])[0], plain.extend([segment])[0])
    assert all(parameter.is_meta for parameter in model.layers.parameters())
    layer = 4 * config.dim**2 + 3 * config.dim * config.ffn_dim + 2 * config.dim
    rest = config.dim + config.dim * config.vocab_size + config.feature_dim * config.dim  # norm, head, features
    assert num_bytes == 4 * (config.num_layers * layer + rest)


def test_the_folder_is_a_bundle_that_knows_the_prompts(tmp_path: Path) -> None:
    prompts = ("A star, red & filled", "a heart")
    write_folder(tmp_path, shape_of("tiny"), prompts, prefix_rate=0.1)
    manifest = load_manifest(tmp_path)
    assert manifest.defaults.prefix_rate == 0.1
    assert manifest.defaults.guidance > 1
    vocabulary = CaptionVocabulary.load(tmp_path / "captions.json")
    assert [vocabulary.encode(prompt).tolist() for prompt in prompts] == [[1], [2]]
    drafter = Drafter(tmp_path / "drafter.onnx", manifest)
    drafter.reset([1])
    proposal = drafter.step(np.zeros(256, np.int64), 0)
    assert np.isfinite(proposal.center).all()
    assert np.isfinite(proposal.feature).all()
