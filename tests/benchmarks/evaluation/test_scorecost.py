"""The cost of scores: what is cut out of the graph, and that what is left computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from ciar.benchmarks.evaluation.scorecost import alternate, cut_graph, graph_cost, score_costs
from ciar.cloud_server.settings import EMBEDDED_BUNDLE
from ciar.shared.bundle import load_manifest
from ciar.shared.errors import PairMismatch

DRAFTER = EMBEDDED_BUNDLE / "drafter.onnx"


def run(model: onnx.ModelProto, outputs: list[str]) -> list[np.ndarray]:
    manifest = load_manifest(EMBEDDED_BUNDLE)
    cache = np.zeros(manifest.drafter_cache_shape, np.float32)
    feeds = {
        "neighbours": np.arange(len(manifest.drafter_neighbours))[None], "start": np.array([20]),
        "condition": np.arange(manifest.caption_length), "cache_key": cache, "cache_value": cache,
    }  # fmt: skip
    return ort.InferenceSession(model.SerializeToString()).run(outputs, feeds)


def test_the_plain_graph_draws_the_same_token_without_the_inter_head() -> None:
    whole, plain = onnx.load(DRAFTER), cut_graph(DRAFTER, ["token"])
    center, cache = run(whole, ["center", "new_cache_key"])
    token, same_cache = run(plain, ["token", "new_cache_key"])
    assert token.item() == center.argmax()
    assert np.array_equal(cache, same_cache)
    operators = {node.op_type for node in plain.graph.node}
    assert "Softmax" not in operators
    assert "Greater" not in operators
    assert sum(w.ByteSize() for w in plain.graph.initializer) < sum(w.ByteSize() for w in whole.graph.initializer)


def test_the_gated_graph_has_all_scores_and_asks_above_the_threshold() -> None:
    outputs = ["uncertainty", "ambiguity", "asked", "feature"]
    whole, gated = onnx.load(DRAFTER), cut_graph(DRAFTER, outputs)
    expected, found = run(whole, ["uncertainty", "ambiguity", "feature"]), run(gated, outputs)
    for name, value in zip(("uncertainty", "ambiguity", "feature"), expected, strict=True):
        assert np.array_equal(value, found[outputs.index(name)])
    assert found[2].item() == (expected[0].item() > 1)


def test_a_graph_without_scores_is_named(tmp_path: Path) -> None:
    onnx.save(cut_graph(DRAFTER, ["center"]), tmp_path / "drafter.onnx")
    with pytest.raises(PairMismatch, match=r"drafter.onnx: the graph has no output uncertainty"):
        cut_graph(tmp_path / "drafter.onnx", ["token"])


def test_steps_take_turns() -> None:
    calls: list[str] = []
    times = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, repeats=2)
    assert calls == list("aabbaabb")
    assert [len(values) for values in times.values()] == [2, 2]


def test_every_score_has_a_cost() -> None:
    costs = score_costs(512, rounds=2)
    assert set(costs) == {"U (interval)", "entropy", "max probability", "margin", "set of 100", "set of 300"}
    assert all(0 < cost.min_us <= cost.median_us for cost in costs.values())


def test_the_graphs_ratio_is_taken_round_by_round() -> None:
    cost = graph_cost(EMBEDDED_BUNDLE, rounds=3, repeats=2)
    assert len(cost.gated_ratio) == len(cost.featured_ratio) == 3
    assert all(ratio > 0 for ratio in cost.gated_ratio)
