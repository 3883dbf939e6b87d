"""Makes every row of a quantised graph independent of the rows that run with it.

    python -m ciar.training.row_exact DRAFTER.onnx TARGET.onnx

In: a graph whose matrices were quantised dynamically: one scale for all rows of a run, so that a row's logits depend on
what else is in its window. Out: the same weights with a scale for each row (ours). The products stay integers, so a row
comes out the same bit for bit in every window of two rows and more; a product of a single row takes another kernel for
its few float operations, so the device never runs one alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

LEVELS = 127
"""Quantised values lie in [−127, 127], and are shifted by 128 to be unsigned: the fast kernels want that."""

_CONSTANTS = {
    "row_step": np.float32(1 / LEVELS),
    "row_least": np.float32(1e-20),
    "row_shift": np.float32(128),
    "row_zero_point": np.uint8(128),
    "row_axis": np.array([-1], np.int64),
}


def quantize_rows_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace every DynamicQuantizeLinear of the graph, in place, by a quantisation with a scale a row."""
    graph = model.graph
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            nodes += _by_rows(node)
        else:
            nodes.append(node)
    if len(nodes) == len(graph.node):
        return model
    scales = {node.output[1] for node in graph.node if node.op_type == "DynamicQuantizeLinear"}
    zero_points = {node.output[2] for node in graph.node if node.op_type == "DynamicQuantizeLinear"}
    for node in nodes:
        for index, name in enumerate(node.input):
            if name in zero_points:
                node.input[index] = "row_zero_point"
    nodes = _scale_in_two_steps(nodes, scales)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in _CONSTANTS.items())
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def _by_rows(node: NodeProto) -> list[NodeProto]:
    """x (…, d) → round(127 x / max|x|) + 128 as uint8 (…, d), and the scale max|x| / 127 (…, 1)."""
    (x,), (quantized, scale, _) = node.input, node.output
    steps = [
        ("Abs", [x], "abs"),
        ("ReduceMax", [f"{x}_row_abs", "row_axis"], "max"),
        ("Max", [f"{x}_row_max", "row_least"], "most"),
        ("Mul", [f"{x}_row_most", "row_step"], scale),
        ("Div", [x, scale], "ratio"),
        ("Round", [f"{x}_row_ratio"], "round"),
        ("Add", [f"{x}_row_round", "row_shift"], "shifted"),
    ]
    names = [name if name == scale else f"{x}_row_{name}" for _, _, name in steps]
    nodes = [helper.make_node(op, given, [name]) for (op, given, _), name in zip(steps, names, strict=True)]
    cast = helper.make_node("Cast", [f"{x}_row_shifted"], [quantized], to=TensorProto.UINT8)
    return [*nodes, cast]


def _scale_in_two_steps(nodes: list[NodeProto], scales: set[str]) -> list[NodeProto]:
    """product · (row scale · weight scale) → (product · weight scale) · row scale.

    ONNX Runtime fuses the first form into MatMulIntegerToFloat, which takes one scale for all rows: with a scale a row
    it loses the bias.
    """
    products = {node.output[0]: node for node in nodes if node.op_type == "Mul" and node.input[0] in scales}
    result: list[NodeProto] = []
    for node in nodes:
        if node.op_type == "Mul" and node.input[1] in products:
            (row_scale, weight_scale), output = products[node.input[1]].input, node.output[0]
            half = f"{output}_by_weights"
            result.append(helper.make_node("Mul", [node.input[0], weight_scale], [half]))
            result.append(helper.make_node("Mul", [half, row_scale], [output]))
        elif node.output[0] not in products:
            result.append(node)
    return result


def main() -> None:
    """Convert a file."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m ciar.training.row_exact DRAFTER.onnx TARGET.onnx")
    source, target = map(Path, sys.argv[1:])
    if not source.is_file():
        sys.exit(f"error: there is no {source}")
    onnx.save(quantize_rows_apart(onnx.load(source)), target)


if __name__ == "__main__":
    main()
