"""How much of the cloud's law lies inside the intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from ciar.benchmarks.evaluation.coverage import bounds_reader, covered_mass, mass_inside
from ciar.benchmarks.evaluation.rollout import Play, distribution, roll_out
from ciar.cloud_server.settings import EMBEDDED_BUNDLE
from ciar.shared.bundle import load_manifest
from ciar.shared.errors import PairMismatch
from ciar.shared.grid import neighbour_index
from ciar.shared.intervals import ambiguity
from tests.support.fake_pair import SAMPLING, fake_pair, three
from tests.support.fake_runner import R, T, V, logits_after


def test_mass_counts_where_the_probability_is_inside() -> None:
    p = np.array([[0.5, 0.3, 0.2], [0.7, 0.1, 0.2]])
    lower, upper = np.array([0.4, 0.0, 0.3], np.float32), np.array([0.6, 0.2, 0.4], np.float32)
    assert mass_inside(p, lower, upper).tolist() == pytest.approx([0.5, 0.1])


def test_bounds_around_the_law_hold_all_of_it_and_bounds_beside_it_nothing() -> None:
    pair = fake_pair()
    table = roll_out(pair, three(), Play("cloud", "always"), SAMPLING)
    condition = pair.vocabulary.encode("red heart")

    def laws(tokens: np.ndarray) -> np.ndarray:
        features = np.zeros((T, R), np.float32)
        return np.stack(
            [distribution(logits_after(condition, tokens[:t], features[:t]), SAMPLING) for t in range(T)]
        )  # (T, V)

    def around(tokens: np.ndarray, _condition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return laws(tokens) - 1e-6, laws(tokens) + 1e-6

    def beside(tokens: np.ndarray, _condition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full((T, V), 2.0), np.full((T, V), 3.0)

    assert covered_mass(pair, around, three(), table, 1.0).tolist() == pytest.approx([1, 1, 1])
    assert covered_mass(pair, beside, three(), table, 1.0).tolist() == [0, 0, 0]


def test_the_graphs_bounds_are_those_that_its_ambiguity_adds_up() -> None:
    manifest = load_manifest(EMBEDDED_BUNDLE)
    tokens = np.random.default_rng(0).integers(0, manifest.vocab_size, manifest.num_tokens)
    condition = np.array([1, 140, 0, 0, 0, 0])
    lower, upper = bounds_reader(EMBEDDED_BUNDLE, manifest)(tokens, condition)
    cache = np.zeros(manifest.drafter_cache_shape, np.float32)
    index = neighbour_index(manifest.grid_height, manifest.grid_width, manifest.drafter_neighbours)
    (expected,) = ort.InferenceSession(EMBEDDED_BUNDLE / "drafter.onnx").run(
        ["ambiguity"],
        {"neighbours": np.append(tokens, manifest.vocab_size)[index], "start": np.array([0]), "condition": condition,
         "cache_key": cache, "cache_value": cache},
    )  # fmt: skip
    assert (lower >= 0).all()
    assert (lower <= upper + 1e-6).all()
    assert (upper <= 1).all()
    assert ambiguity(lower, upper) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_graph_without_widths_is_named(tmp_path: Path) -> None:
    model = onnx.load(EMBEDDED_BUNDLE / "drafter.onnx")
    for node in model.graph.node:
        if "ambiguity" in node.output:
            node.input[0] = "start"
    onnx.save(model, tmp_path / "drafter.onnx")
    with pytest.raises(PairMismatch, match="no sum of widths"):
        bounds_reader(tmp_path, load_manifest(EMBEDDED_BUNDLE))
