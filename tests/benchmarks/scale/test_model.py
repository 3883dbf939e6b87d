"""The model of random weights: its shape is LlamaGen's, and the runner takes it as any other."""

from __future__ import annotations

import numpy as np
import pytest

from ciar.benchmarks.scale.model import config_of, lean_runner, pass_bytes, random_transformer
from ciar.benchmarks.scale.sizes import GRID, MEMORY_GB, SIZES, find_size, require_memory
from ciar.cloud_server.batch import Segment
from ciar.cloud_server.runner import ModelRunner
from ciar.shared.errors import InvalidRequest


@pytest.mark.parametrize(("size", "num_layers", "dim"), [("L", 24, 1024), ("XL", 36, 1280)])
def test_the_shapes_are_those_of_the_paper(size: str, num_layers: int, dim: int) -> None:
    cloud = config_of(size)
    assert (cloud.num_layers, cloud.dim, cloud.vocab_size) == (num_layers, dim, 16_384)
    assert (cloud.grid_height, cloud.grid_width, cloud.conditioning) == (GRID, GRID, "class")


def test_every_size_has_a_shape() -> None:
    assert all(config_of(size).num_tokens == GRID * GRID for size in SIZES)


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
    config = config_of("tiny")
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
