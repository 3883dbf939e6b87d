"""The transformer's layers in ONNX Runtime, for passes on a CPU.

A pass of a small model over a few rows is bound by the overhead of operators, not by arithmetic: torch spends most of
it between small kernels. What lies between two attentions depends on the new rows alone, so it is one graph:

    read: norm → wqkv │ attention │ wo → add → norm → SwiGLU → add, norm → wqkv │ attention │ … → norm │ head

Attention stays in torch, over views of the slot cache, so all sessions of a pass still share every matrix
multiplication. `benchmarks/cloud_step.py` compares the engines. On a GPU the torch module itself is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.onnx_ml_pb2 import NodeProto
from torch import Tensor, nn

from ciar.cloud_server.transformer import Attend, Block, RMSNorm, Transformer, rotate

_OPSET = 23
"""The first with RMSNormalization."""


class OrtLayers:
    """`Transformer.run` and `Transformer.head`, with float32 weights copied into ONNX Runtime's own layout."""

    def __init__(self, model: Transformer, num_threads: int) -> None:
        """num_threads: of a matrix multiplication."""
        self._num_heads = model.config.num_heads
        blocks = cast("list[Block]", list(model.layers))
        self._chunks = [_Graph("x").start_block(blocks[0]).session(num_threads)]
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            graph = _Graph("x", "attended").end_block(block)
            graph = graph.start_block(following) if following else graph.end(model.norm)
            self._chunks.append(graph.session(num_threads))  # one by one: each has a copy of its weights until then
        self._head = _Graph("x").project(model.output, "logits").session(num_threads)

    def run(self, x: Tensor, rope: Tensor, attend: Attend) -> Tensor:
        """All layers and the final norm over packed rows x (N, d) at positions with factors rope (N, Dh/2)."""
        rows = x.numpy()
        (qkv,) = self._chunks[0].run(None, {"x": rows})  # (N, 3d)
        for layer, chunk in enumerate(self._chunks[1:]):
            q, k, v = torch.from_numpy(qkv).view(len(rows), 3, self._num_heads, -1).unbind(1)  # (N, H, Dh) each
            attended = attend(layer, *rotate(q, k, rope), v).reshape(x.shape)
            rows, *rest = chunk.run(None, {"x": rows, "attended": attended.numpy()})
            qkv = rest[0] if rest else None
        return torch.from_numpy(rows)  # (N, d)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (N, V) of rows (N, d)."""
        return torch.from_numpy(self._head.run(None, {"x": hidden.numpy()})[0])


class _Graph:
    """A chunk of the network, node by node. `x` (N, d): the residual stream; `attended` (N, d): from attention."""

    def __init__(self, *inputs: str) -> None:
        self._inputs = inputs
        self._nodes: list[NodeProto] = []
        self._weights: dict[str, NDArray[np.float32]] = {}
        self._outputs: list[str] = []
        self._stream = "x"
        self._width = 0

    def start_block(self, block: Block) -> _Graph:
        """Norm and the projection to q, k and v: the new output `qkv`."""
        normed = self._norm(self._stream, block.attention_norm)
        self._outputs.append(self._linear(normed, block.attention.wqkv, "qkv"))
        return self

    def end_block(self, block: Block) -> _Graph:
        """What follows attention: the residual stream is the new output."""
        ffn = block.feed_forward
        stream = self._add("Add", self._stream, self._linear("attended", block.attention.wo))
        normed = self._norm(stream, block.ffn_norm)
        gate = self._linear(normed, ffn.w1)
        silu = self._add("Mul", gate, self._add("Sigmoid", gate))
        hidden = self._add("Mul", silu, self._linear(normed, ffn.w3))
        self._stream = self._add("Add", stream, self._linear(hidden, ffn.w2))
        self._outputs.append(self._stream)
        return self

    def end(self, norm: RMSNorm) -> _Graph:
        """The final norm takes the residual stream's place among the outputs."""
        self._outputs[-1] = self._norm(self._stream, norm)
        return self

    def project(self, linear: nn.Linear, name: str) -> _Graph:
        """One projection of `x`."""
        self._outputs.append(self._linear(self._stream, linear, name))
        return self

    def session(self, num_threads: int) -> ort.InferenceSession:
        """The graph, ready to run."""
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", self._width]) for name in self._inputs
        ]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self._outputs]
        weights = [numpy_helper.from_array(value, name) for name, value in self._weights.items()]
        graph = helper.make_graph(self._nodes, "chunk", inputs, outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def _linear(self, x: str, linear: nn.Linear, name: str | None = None) -> str:
        weight = linear.weight.detach().float().t().contiguous().numpy()  # (in, out)
        self._width = self._width or weight.shape[0]
        return self._add("MatMul", x, self._weight(weight), name=name)

    def _norm(self, x: str, norm: RMSNorm) -> str:
        weight = self._weight(norm.weight.detach().float().numpy())
        return self._add("RMSNormalization", x, weight, attributes={"axis": -1, "epsilon": norm.eps})

    def _weight(self, value: NDArray[np.float32]) -> str:
        name = f"weight{len(self._weights)}"
        self._weights[name] = value
        return name

    def _add(
        self, operator: str, *inputs: str, name: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> str:
        output = name or f"value{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **(attributes or {})))
        return output
