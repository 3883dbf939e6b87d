"""A scale a row: the same weights, rows that do not see each other, and nothing lost to the runtime's fusions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from ciar.training.row_exact import main, quantize_rows_apart

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(32, 24)).astype(np.float32)
BIAS = RNG.normal(size=24).astype(np.float32)
X = (RNG.normal(size=(16, 32)) * 10.0 ** RNG.integers(-2, 3, (16, 1))).astype(np.float32)


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    """x (n, 32) → x W + b, with 8-bit weights and one scale for all rows."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 24])],
        [onnx.numpy_helper.from_array(WEIGHT, "w"), onnx.numpy_helper.from_array(BIAS, "b")],
    )
    source, target = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), source)
    quantize_dynamic(source, target, weight_type=QuantType.QInt8)
    return target


def run(path: Path, rows: np.ndarray, *, optimised: bool = True) -> np.ndarray:
    options = ort.SessionOptions()
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": rows})[0])


@pytest.fixture
def row_exact(quantized: Path, tmp_path: Path) -> Path:
    path = tmp_path / "rows.onnx"
    onnx.save(quantize_rows_apart(onnx.load(quantized)), path)
    return path


def test_rows_do_not_see_each_other(quantized: Path, row_exact: Path) -> None:
    together = run(row_exact, X)
    np.testing.assert_array_equal(np.concatenate([run(row_exact, X[i : i + 2]) for i in range(0, 16, 2)]), together)
    assert np.abs(run(quantized, X[:2]) - run(quantized, X)[:2]).max() > 0.01, "which the graph before does"


def test_small_rows_beside_large_ones_keep_their_precision(row_exact: Path) -> None:
    exact = X @ WEIGHT + BIAS
    error = np.abs(run(row_exact, X) - exact).max(1)
    assert (error < 0.05 * (1e-3 + np.abs(X @ WEIGHT).max(1))).all()


def test_the_runtimes_fusions_change_nothing(row_exact: Path) -> None:
    np.testing.assert_allclose(run(row_exact, X), run(row_exact, X, optimised=False), rtol=1e-5, atol=1e-5)


def test_a_row_of_zeros_is_the_bias(row_exact: Path) -> None:
    np.testing.assert_array_equal(run(row_exact, np.zeros((2, 32), np.float32)), np.stack([BIAS, BIAS]))


def test_a_graph_without_dynamic_scales_is_left_alone(row_exact: Path) -> None:
    model = onnx.load(row_exact)
    num_nodes = len(model.graph.node)
    assert len(quantize_rows_apart(model).graph.node) == num_nodes


def test_the_command(quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["row_exact", str(quantized), str(tmp_path / "out.onnx")])
    main()
    assert run(tmp_path / "out.onnx", X).shape == (16, 24)
    monkeypatch.setattr("sys.argv", ["row_exact", "nothing.onnx", "x"])
    with pytest.raises(SystemExit, match=r"there is no nothing\.onnx"):
        main()
