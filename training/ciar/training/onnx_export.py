"""Writes the device's two graphs and checks them against torch.

Flows in: trained modules. Flows out: drafter.onnx, decoder.onnx. Knows nothing of manifests or captions.
"""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from ciar.training.drafter import GRAPH_INPUTS, GRAPH_OUTPUTS, Drafter, DrafterGraph, gather_neighbours
from ciar.training.row_exact import quantize_rows_apart
from ciar.training.tokenizer import VQTokenizer

OPSET = 18
NUM_RESULTS = 5
"""Outputs of the drafter graph before the caches."""


class ParityError(Exception):
    """An exported graph does not compute what the module computes."""


def _export(
    module: nn.Module,
    args: tuple[Tensor, ...],
    path: Path,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    dynamic: tuple,
) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            args,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic,
            verbose=False,
        )
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(path))
    model = onnx.load(path)
    _forget_where_it_was_made(model)
    onnx.save(model, path)


def _forget_where_it_was_made(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes, which hold paths of the machine."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]
    del graph.metadata_props[:]
    del model.metadata_props[:]


def _cache_shape(drafter: Drafter) -> tuple[int, int, int, int]:
    """(1, H, T, D) of the keys, and of the values."""
    return 1, drafter.config.num_heads, drafter.pair.num_tokens, drafter.config.head_dim


def export_drafter(drafter: Drafter, path: Path) -> None:
    """Write the drafter's graph with float32 weights; n is dynamic."""
    pair = drafter.pair
    cache = torch.zeros(_cache_shape(drafter))
    rows = torch.full((5, len(drafter.config.neighbours)), pair.vocab_size)
    args = (rows, torch.tensor([0]), torch.zeros(pair.caption_length, dtype=torch.int64), cache, cache.clone())
    count = torch.export.Dim("n", min=1, max=pair.num_tokens)
    _export(DrafterGraph(drafter), args, path, GRAPH_INPUTS, GRAPH_OUTPUTS, ({0: count}, None, None, None, None))


def export_decoder(tokenizer: VQTokenizer, path: Path) -> None:
    """Write the picture decoder's graph: tokens (T,) → image."""
    tokens = torch.zeros(tokenizer.config.grid**2, dtype=torch.int64)
    _export(tokenizer.picture_decoder(), (tokens,), path, ("tokens",), ("image",), (None,))


def quantize(source: Path, target: Path) -> None:
    """Int8 weights for the matrices of a graph, and a scale for each row of what they are multiplied with."""
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser advises through the root logger
    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=False)
    onnx.save(quantize_rows_apart(onnx.load(target)), target)


class DrafterSession:
    """The exported drafter as the device runs it: one cache buffer, bound as input and as output."""

    def __init__(self, path: Path, drafter: Drafter) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        shape = _cache_shape(drafter)
        self.caches = [ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for _ in range(2)]
        self.index, self.none_id = drafter.neighbour_index, drafter.pair.vocab_size

    def read(self, tokens: Tensor, condition: Tensor, start: int, stop: int) -> list[NDArray[np.float32]]:
        """Rows start … stop − 1 of tokens (T,) under a caption (C,): the graph's outputs before the caches."""
        rows = gather_neighbours(tokens[None], self.index[start:stop], self.none_id)[0]  # (n, K)
        binding = self.session.io_binding()
        binding.bind_cpu_input("neighbours", rows.numpy())
        binding.bind_cpu_input("start", np.array([start]))
        binding.bind_cpu_input("condition", condition.numpy())
        for name in GRAPH_OUTPUTS[:NUM_RESULTS]:
            binding.bind_output(name)  # bound first, returned first
        for name, cache in zip(GRAPH_INPUTS[3:], self.caches, strict=True):
            binding.bind_ortvalue_input(name, cache)
            binding.bind_ortvalue_output(f"new_{name}", cache)
        self.session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()[:NUM_RESULTS]


@dataclass(frozen=True)
class DrafterParity:
    """Agreement of an exported drafter with its module."""

    center_error: float
    """Largest difference of a centre logit."""
    total_variation: float
    """Mean TV between the laws of graph and module."""
    step_ms: float
    """Median time of a one-row step, one thread."""


@torch.inference_mode()
def check_drafter(path: Path, drafter: Drafter, tokens: Tensor, condition: Tensor, prefix: int = 15) -> DrafterParity:
    """Read a prefix of tokens (T,) at once and the rest step by step; compare with the teacher-forced module."""
    expected = drafter(condition[None], tokens[None])
    session = DrafterSession(path, drafter)
    centers, times = [session.read(tokens, condition, 0, prefix)[0]], []
    for t in range(prefix, len(tokens)):
        begun = time.perf_counter()
        centers.append(session.read(tokens, condition, t, t + 1)[0])
        times.append(time.perf_counter() - begun)
    got = torch.from_numpy(np.concatenate(centers))
    gap = torch.softmax(got, -1) - torch.softmax(expected.center[0], -1)
    error = (got - expected.center[0]).abs().max().item()
    return DrafterParity(error, 0.5 * gap.abs().sum(-1).mean().item(), 1e3 * float(np.median(times)))


@torch.inference_mode()
def check_decoder(path: Path, tokenizer: VQTokenizer, tokens: Tensor) -> int:
    """Largest difference of a channel value (0 … 255) between graph and module for tokens (T,)."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"tokens": tokens.numpy()})
    expected = tokenizer.picture_decoder()(tokens).numpy()
    return int(np.abs(got.astype(int) - expected.astype(int)).max())
