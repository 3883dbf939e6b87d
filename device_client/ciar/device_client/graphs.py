"""How the device runs its ONNX graphs: one thread, no spinning, checked against the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from ciar.shared.errors import PairMismatch


def load_graph(path: Path, name: str, inputs: set[str]) -> ort.InferenceSession:
    """A session of one graph. Raises PairMismatch if it cannot be loaded or its inputs are not the expected ones."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without it, products of 8-bit integers saturate on x86 processors without VNNI: other tokens for the same seed.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime's errors have no common base of their own
        raise PairMismatch(f"{name}: ONNX Runtime {ort.__version__} cannot load it: {exc}") from exc
    found = {node.name for node in session.get_inputs()}
    if found != inputs:
        raise PairMismatch(f"{name}: inputs are {sorted(found)}, expected {sorted(inputs)}")
    return session


def require_shape(session: ort.InferenceSession, node_name: str, expected: Sequence[int | None], name: str) -> None:
    """Raises PairMismatch if an input's fixed sizes differ from the manifest's; None stands for any size."""
    shape = next(node.shape for node in session.get_inputs() if node.name == node_name)
    fits = len(shape) == len(expected) and all(
        size in (None, found) for found, size in zip(shape, expected, strict=True) if isinstance(found, int)
    )
    if not fits:
        raise PairMismatch(f"{name}: {node_name} has shape {shape}, the manifest asks for {expected}")
