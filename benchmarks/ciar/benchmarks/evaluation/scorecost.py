"""What a score of doubt costs a token: in numpy at several vocabulary sizes, and inside the drafter's graph.

In: vocabulary sizes, or a bundle's drafter.onnx. Out: microseconds, and ratios of steps taken in turn within one run.
The graph is the shipped one, cut: without the Inter-Head it keeps trunk, cache and centre head, and ends in an
arg-max. Knows nothing of pictures or of quality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import thread_time_ns
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from ciar.benchmarks.evaluation.rollout import PAPER_SETS
from ciar.benchmarks.gates import entropy, margin, max_probability, outside_set
from ciar.device_client.drafter import NAME as DRAFTER
from ciar.device_client.gates import Scores
from ciar.shared.bundle import load_manifest
from ciar.shared.errors import PairMismatch
from ciar.shared.intervals import interfuse, uncertainty

VOCAB_SIZES = (2_048, 16_384, 65_536)

Step = Callable[[], object]


class Timing(NamedTuple):
    """One thing done many times."""

    min_us: float
    """Fastest round: the cost without what else the machine does."""
    median_us: float


def alternate(steps: Mapping[str, Step], *, rounds: int, repeats: int) -> dict[str, list[float]]:
    """Microseconds of a call of each step, one value a round; all steps take their turn in every round.

    Processor time of this thread, so that other programs that want the core count as little as they can.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began = thread_time_ns()
            for _ in range(repeats):
                step()
            times[name].append((thread_time_ns() - began) / repeats / 1e3)
    return times


def score_costs(vocab_size: int, *, rounds: int = 15) -> dict[str, Timing]:
    """Cost of each score of one token of a vocabulary, from logits in memory, in numpy on one thread.

    U is made from centre logits and radii by InterFuse; discrete sets have the paper's k whatever the vocabulary.
    """
    random = np.random.default_rng(0)
    center = random.normal(scale=3, size=vocab_size).astype(np.float32)  # (V,)
    radius = random.gamma(1.0, size=vocab_size).astype(np.float32)  # (V,)
    scores = Scores(0.0, 0.0, 0.0, center)
    steps: dict[str, Step] = {
        "U (interval)": lambda: uncertainty(*interfuse(center, radius)),
        "entropy": lambda: entropy(0, scores),
        "max probability": lambda: max_probability(0, scores),
        "margin": lambda: margin(0, scores),
    }
    for size in PAPER_SETS:
        doubt = outside_set(size)
        steps[f"set of {size}"] = lambda doubt=doubt: doubt(0, scores)
    repeats = max(3, 200_000 // vocab_size)
    times = alternate(steps, rounds=rounds, repeats=repeats)
    return {name: Timing(min(values), median(values)) for name, values in times.items()}


@dataclass(frozen=True)
class GraphCost:
    """A step of the drafter with and without what makes it CIAR's."""

    plain: Timing
    """Trunk, centre head, arg-max."""
    gated: Timing
    """The same with radius head, interval, Ω, Σ, U, and the comparison of U with a threshold."""
    featured: Timing
    """The same with the interval feature that is sent to the cloud: all that the shipped graph computes."""
    gated_ratio: tuple[float, ...]
    """gated over plain, one value a round."""
    featured_ratio: tuple[float, ...]


def graph_cost(bundle: Path, *, rounds: int = 120, repeats: int = 8) -> GraphCost:
    """Time one-row steps of the shipped drafter's graph, whole and cut, in turn.

    Raises PairMismatch if the graph lacks an output that a drafter has.
    """
    manifest, path = load_manifest(bundle), bundle / DRAFTER
    inputs = {
        "neighbours": np.zeros((1, len(manifest.drafter_neighbours)), np.int64),
        "start": np.array([manifest.num_tokens // 2]),
        "condition": np.zeros(manifest.caption_length, np.int64),
    } | {name: np.zeros(manifest.drafter_cache_shape, np.float32) for name in ("cache_key", "cache_value")}
    results = {
        "plain": ["token"],
        "gated": ["token", "center", "ambiguity", "disparity", "uncertainty", "asked"],
        "featured": ["token", "center", "ambiguity", "disparity", "uncertainty", "asked", "feature"],
    }
    steps = {name: _step(cut_graph(path, outputs), outputs, inputs) for name, outputs in results.items()}
    alternate(steps, rounds=5, repeats=repeats)  # warm up
    times = alternate(steps, rounds=rounds, repeats=repeats)
    timings = {name: Timing(min(values), median(values)) for name, values in times.items()}

    def ratio(name: str) -> tuple[float, ...]:
        return tuple(own / plain for own, plain in zip(times[name], times["plain"], strict=True))

    return GraphCost(**timings, gated_ratio=ratio("gated"), featured_ratio=ratio("featured"))


def cut_graph(path: Path, outputs: Sequence[str]) -> onnx.ModelProto:
    """The drafter's graph with these outputs and the new caches only, and nothing that no output needs.

    "token" is the arg-max of the centre logits, "asked" whether U is above a threshold; both are put in.
    """
    model = onnx.load(str(path))
    graph = model.graph
    known = {output.name: output for output in graph.output}
    wanted = [*outputs, "new_cache_key", "new_cache_value"]
    if missing := sorted(({*wanted, "center", "uncertainty"} - {"token", "asked"}) - known.keys()):
        raise PairMismatch(f"{path.name}: the graph has no output {', '.join(missing)}; export it again")
    graph.initializer.append(helper.make_tensor("evaluation.threshold", TensorProto.FLOAT, [], [1.0]))
    graph.node.extend(
        [
            helper.make_node("ArgMax", ["center"], ["token"], axis=-1, keepdims=0),
            helper.make_node("Greater", ["uncertainty", "evaluation.threshold"], ["asked"]),
        ]
    )
    known |= {
        "token": helper.make_tensor_value_info("token", TensorProto.INT64, None),
        "asked": helper.make_tensor_value_info("asked", TensorProto.BOOL, None),
    }
    needed, kept = set(wanted), []
    for node in reversed(graph.node):  # sorted by dependence: what uses a node comes after it
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    weights = [weight for weight in graph.initializer if weight.name in needed]
    for field, values in (
        (graph.node, kept[::-1]),
        (graph.initializer, weights),
        (graph.output, [known[name] for name in wanted]),
    ):
        del field[:]
        field.extend(values)
    return model


def _step(model: onnx.ModelProto, outputs: Sequence[str], inputs: Mapping[str, np.ndarray[Any, Any]]) -> Step:
    """A one-row step, bound once as the device binds it: caches are input and output in one place."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    values = {name: ort.OrtValue.ortvalue_from_numpy(array.copy()) for name, array in inputs.items()}
    for name in (node.name for node in session.get_inputs()):
        binding.bind_ortvalue_input(name, values[name])
    for name in outputs:
        binding.bind_output(name)
    for name in ("cache_key", "cache_value"):
        binding.bind_ortvalue_output(f"new_{name}", values[name])
    return lambda: session.run_with_iobinding(binding)
