"""A random drafter and decoder of the real graphs' form, written by hand: for tests, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save

from ciar.shared.bundle import Manifest

HEIGHT, WIDTH, VOCAB, PHRASES, CAPTION, HEADS, HEAD_DIM, FEATURE = 4, 4, 16, 8, 3, 2, 8, 3
NUM_TOKENS = HEIGHT * WIDTH
PIXELS = 2  # a token is so many pixels wide and high


class _Graph:
    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[object] = []
        self.initializers: list[object] = []

    def __call__(self, operator: str, *inputs: str, output: str = "", **attributes: object) -> str:
        output = output or f"n{len(self.nodes)}"
        self.node(operator, inputs, [output], **attributes)
        return output

    def node(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> None:
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))

    def constant(self, array: NDArray[np.generic]) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant(self._random.normal(0, 1, shape).astype(np.float32))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))


def write_drafter(path: Path, *, seed: int = 0, num_tokens: int = NUM_TOKENS, vocab: int = VOCAB, dim: int = 8,
                  heads: int = HEADS, head_dim: int = HEAD_DIM, feature_dim: int = FEATURE) -> None:  # fmt: skip
    """drafter.onnx: the real inputs and outputs, one attention layer, random weights."""
    g = _Graph(seed)
    width = heads * head_dim
    token_rows = g("Gather", g.weight(vocab + 1, dim), "neighbours")  # (n, 4, dim)
    offsets = g("Add", token_rows, g.weight(4, dim))
    phrases = g("ReduceSum", g("Gather", g.weight(PHRASES, dim), "condition"), g.ints(0), keepdims=0)  # (dim)
    mixed = g("Add", g("ReduceSum", g("Tanh", offsets), g.ints(1), keepdims=0), phrases)  # (n, dim)
    end = g("Cast", g("Add", "start", g("Shape", "neighbours", start=0, end=1)), to=TensorProto.INT32)  # (1,)
    last = g("Sub", end, g.constant(np.ones(1, np.int32)))
    batch = g("Unsqueeze", mixed, g.ints(0))  # (1, n, dim)
    rows = [g("MatMul", batch, g.weight(dim, width)) for _ in "qkv"]  # (1, n, H · D) each
    g.node(
        "GroupQueryAttention", [*rows, "cache_key", "cache_value", last, end],
        ["attended", "new_cache_key", "new_cache_value"],
        domain="com.microsoft", num_heads=heads, kv_num_heads=heads, scale=1.0,
    )  # fmt: skip
    joined = g("Squeeze", "attended", g.ints(0))  # (n, H · D)
    hidden = g("Add", mixed, g("MatMul", joined, g.weight(width, dim)))  # (n, dim)
    g("MatMul", hidden, g.weight(dim, vocab), output="center")
    radius = g("Softplus", g("MatMul", hidden, g.weight(dim, vocab)))
    middle = g("Softmax", "center", axis=-1)
    odds = g("Log", g("Div", middle, g("Sub", g.constant(np.float32(1.000001)), middle)))
    upper, lower = g("Sigmoid", g("Add", odds, radius)), g("Sigmoid", g("Sub", odds, radius))
    widths = g("Sub", upper, lower)  # (n, V)
    g("ReduceSum", widths, g.ints(1), output="ambiguity", keepdims=0)
    spread = g("Sub", widths, g("ReduceMean", widths, g.ints(1), keepdims=1))
    g("Sqrt", g("ReduceMean", g("Mul", spread, spread), g.ints(1), keepdims=0), output="disparity")
    g("Mul", "ambiguity", "disparity", output="uncertainty")
    g("MatMul", hidden, g.weight(dim, feature_dim), output="feature")
    cache = [1, heads, num_tokens, head_dim]
    _save(
        g,
        path,
        {"neighbours": ("i", ["n", 4]), "start": ("i", [1]), "condition": ("i", [None]),
         "cache_key": ("f", cache), "cache_value": ("f", cache)},
        {"center": ("f", ["n", vocab]), "ambiguity": ("f", ["n"]), "disparity": ("f", ["n"]),
         "uncertainty": ("f", ["n"]), "feature": ("f", ["n", feature_dim]),
         "new_cache_key": ("f", cache), "new_cache_value": ("f", cache)},
    )  # fmt: skip


def write_decoder(path: Path) -> None:
    """decoder.onnx: a token is a square of one colour."""
    g = _Graph(1)
    palette = g.constant(np.random.default_rng(1).integers(0, 256, (VOCAB, 3), dtype=np.uint8))
    cells = g("Reshape", g("Gather", palette, "tokens"), g.ints(HEIGHT, 1, WIDTH, 1, 3))
    grown = g("Expand", cells, g.ints(HEIGHT, PIXELS, WIDTH, PIXELS, 3))
    g("Reshape", grown, g.ints(HEIGHT * PIXELS, WIDTH * PIXELS, 3), output="image")
    shape = [HEIGHT * PIXELS, WIDTH * PIXELS, 3]
    _save(g, path, {"tokens": ("i", [NUM_TOKENS])}, {"image": ("u", shape)})


def write_device_files(folder: Path) -> Manifest:
    """Both graphs, and the manifest that names them (not written)."""
    write_drafter(folder / "drafter.onnx")
    write_decoder(folder / "decoder.onnx")
    return make_manifest({name: (folder / name).read_bytes() for name in ("drafter.onnx", "decoder.onnx")})


def make_manifest(files: dict[str, bytes], **defaults: object) -> Manifest:
    """A manifest of the tiny pair."""
    return Manifest.model_validate(
        {
            "format": 1, "name": "tiny", "version": "1", "vocab_size": VOCAB,
            "grid_height": HEIGHT, "grid_width": WIDTH, "caption_length": CAPTION, "feature_dim": FEATURE,
            "image_height": HEIGHT * PIXELS, "image_width": WIDTH * PIXELS,
            "drafter_heads": HEADS, "drafter_head_dim": HEAD_DIM,
            "defaults": {"prefix_rate": 0.1, "gate": "quantile", "verify_share": 0.3} | defaults,
            "uncertainty_quantiles": np.linspace(0, 1, 101).tolist(),
            "ambiguity_quantiles": np.linspace(0, 2, 101).tolist(),
            "files": {
                name: {"role": "device", "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
                for name, data in files.items()
            },
        }
    )  # fmt: skip


_TYPES = {"i": TensorProto.INT64, "f": TensorProto.FLOAT, "u": TensorProto.UINT8}


def _save(g: _Graph, path: Path, inputs: dict[str, tuple[str, list]], outputs: dict[str, tuple[str, list]]) -> None:
    values = [
        [helper.make_tensor_value_info(name, _TYPES[kind], shape) for name, (kind, shape) in group.items()]
        for group in (inputs, outputs)
    ]
    graph = helper.make_graph(g.nodes, "tiny", values[0], values[1], g.initializers)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
