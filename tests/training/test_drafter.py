"""The drafter: interval mathematics, three ways to run it, and its exported graph."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from ciar.shared import intervals
from ciar.shared.grid import neighbour_index
from ciar.training.drafter import Drafter, DrafterStepper, gather_neighbours, interfuse, scores
from ciar.training.onnx_export import DrafterSession, check_drafter, export_drafter, quantize


def test_interfuse_is_the_shared_one() -> None:
    rng = np.random.default_rng(0)
    center = rng.normal(0, 3, (20, 50)).astype(np.float32)
    radius = rng.gamma(1.0, 1.0, (20, 50)).astype(np.float32)
    lower, upper = interfuse(torch.from_numpy(center), torch.from_numpy(radius))
    expected = intervals.interfuse(center, radius)
    np.testing.assert_allclose(lower, expected[0], atol=2e-5)
    np.testing.assert_allclose(upper, expected[1], atol=2e-5)
    ambiguity, disparity, uncertainty = scores(lower, upper)
    np.testing.assert_allclose(ambiguity, intervals.ambiguity(*expected), atol=1e-3)
    np.testing.assert_allclose(disparity, intervals.disparity(*expected), atol=1e-4)
    np.testing.assert_allclose(uncertainty, intervals.uncertainty(*expected), atol=1e-3)


@torch.inference_mode()
def test_a_drafts_interval_is_interfuse_of_its_radius(
    drafter: Drafter, tokens: torch.Tensor, condition: torch.Tensor
) -> None:
    draft = drafter(condition, tokens)
    assert (draft.radius > 0).all()
    for got, want in zip(draft.interval(), interfuse(draft.center, draft.radius), strict=True):
        torch.testing.assert_close(got, want)


def test_interfuse_survives_a_law_that_is_all_on_one_token() -> None:
    center = torch.tensor([[50.0, -50.0, 0.0]])
    lower, upper = interfuse(center, torch.ones(1, 3))
    assert torch.isfinite(lower).all()
    assert torch.isfinite(upper).all()
    assert (lower <= upper).all()


def test_gathered_neighbours_end_at_the_edges() -> None:
    tokens = torch.arange(16)[None]
    index = torch.from_numpy(neighbour_index(4, 4))
    assert gather_neighbours(tokens, index[7:8], 99).tolist() == [[[6, 3, 99, 2]]]
    assert gather_neighbours(tokens, index[0:1], 99).tolist() == [[[99] * 4]]


@torch.inference_mode()
def test_stepping_equals_teacher_forcing(drafter: Drafter, tokens: torch.Tensor, condition: torch.Tensor) -> None:
    whole = drafter(condition, tokens)
    stepper = DrafterStepper(drafter, condition)
    steps = [stepper.step(t, tokens) for t in range(tokens.shape[1])]
    torch.testing.assert_close(torch.cat([s.center for s in steps], 1), whole.center, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_draft_does_not_depend_on_later_tokens(
    drafter: Drafter, tokens: torch.Tensor, condition: torch.Tensor
) -> None:
    changed = tokens.clone()
    changed[:, 100:] = 0
    before, after = drafter(condition, tokens).center, drafter(condition, changed).center
    torch.testing.assert_close(before[:, :101], after[:, :101])
    assert not torch.allclose(before[:, 101], after[:, 101])


@torch.inference_mode()
@pytest.mark.parametrize("prefix", [1, 15])
def test_exported_graph_equals_torch(
    prefix: int, drafter: Drafter, tokens: torch.Tensor, condition: torch.Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "drafter.onnx"
    export_drafter(drafter, path)
    assert check_drafter(path, drafter, tokens[0], condition[0], prefix).center_error < 1e-4
    results = DrafterSession(path, drafter).read(tokens[0], condition[0], 0, 20)
    draft = drafter(condition[:1], tokens[:1])
    expected = (draft.center, *scores(*draft.interval()), drafter.feature(draft))
    for got, want in zip(results, expected, strict=True):
        np.testing.assert_allclose(got, want[0, :20], atol=1e-4)


@torch.inference_mode()
def test_exported_graph_reads_on_after_a_rollback(
    drafter: Drafter, tokens: torch.Tensor, condition: torch.Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "drafter.onnx"
    export_drafter(drafter, path)
    session = DrafterSession(path, drafter)
    expected = drafter(condition[:1], tokens[:1]).center[0]
    session.read(tokens[0], condition[0], 0, 40)
    changed = tokens[0].clone()
    changed[40:] = (changed[40:] + 1) % drafter.pair.vocab_size
    session.read(changed, condition[0], 40, 256)  # drafted, and discarded
    cache = session.caches[0].numpy().copy()
    got = session.read(tokens[0], condition[0], 40, 71)[0]
    np.testing.assert_allclose(got, expected[40:71], atol=1e-4)
    outside = np.r_[:40, 71:256]
    np.testing.assert_array_equal(session.caches[0].numpy()[:, :, outside], cache[:, :, outside])  # untouched
    np.testing.assert_allclose(session.read(tokens[0], condition[0], 71, 72)[0], expected[71:72], atol=1e-4)


def test_onnx_runtime_fuses_attention_and_norms(drafter: Drafter, tmp_path: Path) -> None:
    path, optimized = tmp_path / "drafter.onnx", tmp_path / "optimized.onnx"
    export_drafter(drafter, path)
    quantize(path, path)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 3  # it warns that the file holds for this machine only
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    assert operators["GroupQueryAttention"] == 1
    assert operators["SimplifiedLayerNormalization"] == 3  # this drafter has no first feed-forward layer
    assert operators.keys().isdisjoint({"Transpose", "Reshape", "ScatterND", "Log", "Softplus"})
