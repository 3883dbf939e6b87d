"""Whether the intervals hold the cloud's law: how much of its mass lies inside the drafter's bounds.

In: a pair, and the table of the play "cloud", whose sequences both sides read again at once. Out: a share for each
picture. The bounds are not among the drafter's outputs; they are taken from inside its graph, as the two ends of the
widths that Ω adds up. At temperature 1, where the Inter-Head states its intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ciar.benchmarks.evaluation.pictures import Picture
from ciar.benchmarks.evaluation.rollout import Pair, Table, distribution
from ciar.cloud_server.batch import Segment
from ciar.device_client.drafter import NAME as DRAFTER
from ciar.shared.bundle import Manifest
from ciar.shared.errors import PairMismatch
from ciar.shared.grid import neighbour_index
from ciar.shared.types import Sampling, Tokens

Bounds = tuple[NDArray[np.float32], NDArray[np.float32]]
"""(lower, upper), (T, V) each."""


def mass_inside(p: NDArray[np.float64], lower: NDArray[np.float32], upper: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mass of p on tokens whose probability lies inside its bounds: (…, V) each -> (…)."""
    return np.asarray((p * ((p >= lower) & (p <= upper))).sum(-1))


def covered_mass(
    pair: Pair,
    bounds_of: Callable[[Tokens, NDArray[np.int64]], Bounds],
    pictures: Sequence[Picture],
    table: Table,
    guidance: float,
) -> NDArray[np.float64]:
    """Mean `mass_inside` over the drafted positions of each picture: (N,).

    bounds_of: tokens (T,) and condition (C,) -> the drafter's bounds. table: of a play without features, row by row
    of `pictures`.
    """
    positions = np.arange(table.num_prefix, pair.manifest.num_tokens)
    plain = Sampling(temperature=1.0)
    shares = []
    for picture, tokens in zip(pictures, table.tokens, strict=True):
        condition = pair.vocabulary.encode(picture.prompt)
        segment = Segment(0, guidance, condition, 0, tokens[:-1], None, positions)
        (logits,) = pair.runner.extend([segment])  # (n, V)
        p = np.stack([distribution(row, plain) for row in logits])
        lower, upper = bounds_of(tokens, condition)
        shares.append(float(mass_inside(p, lower[positions], upper[positions]).mean()))
    return np.array(shares)


def bounds_reader(bundle: Path, manifest: Manifest) -> Callable[[Tokens, NDArray[np.int64]], Bounds]:
    """Reads the bounds of all rows of a picture at once (a dynamically quantised graph rounds them a little
    differently than step by step). Raises PairMismatch if the graph does not add up widths.
    """
    model = onnx.load(str(bundle / DRAFTER))
    upper, lower = _ends_of_widths(model.graph)
    for name in (lower, upper):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    index = neighbour_index(manifest.grid_height, manifest.grid_width, manifest.drafter_neighbours)  # (T, K)
    cache = np.zeros(manifest.drafter_cache_shape, np.float32)

    def read(tokens: Tokens, condition: NDArray[np.int64]) -> Bounds:
        feeds = {
            "neighbours": np.append(tokens, manifest.vocab_size)[index],
            "start": np.zeros(1, np.int64),
            "condition": condition,
            "cache_key": cache,
            "cache_value": cache,
        }
        found = [np.asarray(values, np.float32) for values in session.run([lower, upper], feeds)]
        shape = (manifest.num_tokens, manifest.vocab_size)
        return found[0].reshape(shape), found[1].reshape(shape)

    return read


def _ends_of_widths(graph: onnx.GraphProto) -> tuple[str, str]:
    """Names of the minuend and subtrahend of the widths: the nearest subtraction before "ambiguity"."""
    made_by = {output: node for node in graph.node for output in node.output}
    name = "ambiguity"
    while (node := made_by.get(name)) is not None:
        if node.op_type == "Sub":
            return node.input[0], node.input[1]
        name = node.input[0]
    raise PairMismatch(f"{DRAFTER}: its ambiguity is no sum of widths, so its bounds cannot be read")
