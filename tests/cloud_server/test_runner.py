"""The runner's packed, cached passes equal teacher-forced ones, however they are split, mixed and rolled back."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from ciar.cloud_server.batch import Segment
from ciar.cloud_server.runner import ModelRunner, load_transformer
from ciar.cloud_server.transformer import Transformer, TransformerConfig
from ciar.shared.errors import PairMismatch
from tests.support.tiny_bundle import CONFIG, make_transformer

T, V, C, R = CONFIG.num_tokens, CONFIG.vocab_size, CONFIG.caption_length, CONFIG.feature_dim

CONFIGS = {
    "phrases everywhere": CONFIG,
    "zero prefix rows": CONFIG.model_copy(update={"prefix_rope": "zeros", "condition_everywhere": False}),
    "LlamaGen's classes": CONFIG.model_copy(
        update={
            "conditioning": "class",
            "caption_length": 1,
            "prefix_rope": "zeros",
            "condition_everywhere": False,
            "feature_dim": 0,
        }
    ),
}


class Slot:
    """What should be in one slot, and its next random segment."""

    def __init__(self, index: int, config: TransformerConfig, guidance: float, rng: np.random.Generator) -> None:
        self.index, self.config, self.guidance, self.rng = index, config, guidance, rng
        self.condition = rng.integers(1, config.num_phrases, config.caption_length)
        self.tokens = rng.integers(0, config.vocab_size, config.num_tokens)
        self.features = np.zeros((config.num_tokens, config.feature_dim), np.float32)
        self.num_cached = -1  # tokens whose rows are in the cache; −1: nothing, not even the conditioning

    def segment(self) -> Segment:
        """Go on after the cached rows, or roll back into them; tokens from there on are new ones."""
        rng, last = self.rng, self.config.num_tokens - 1  # the last token's own row predicts nothing
        first = self.num_cached
        if first > 0 and (first >= last or rng.random() < 0.3):
            first = int(rng.integers(0, first))
        first = min(first, last - 1)
        restart = first < 0 or (first == 0 and rng.random() < 0.5)
        first = max(first, 0)
        count = int(rng.integers(0 if restart else 1, min(9, last - first) + 1))
        end = first + count
        self.tokens[first:] = rng.integers(0, self.config.vocab_size, len(self.tokens) - first)
        self.features[first:] = 0
        if rng.random() < 0.7:
            self.features[first:end][rng.random(count) < 0.5] = rng.normal(size=self.config.feature_dim)
        self.num_cached = end
        predicted = np.arange(first if restart else first + 1, end + 1)
        wanted = np.sort(rng.choice(predicted, rng.integers(1, len(predicted) + 1), replace=False))
        features = self.features[first:end]
        return Segment(
            slot=self.index,
            guidance=self.guidance,
            condition=self.condition,
            start=0 if restart else self.config.caption_length + first,
            tokens=self.tokens[first:end].copy(),
            features=features.copy() if features.any() else None,
            wanted=wanted,
        )

    def expected(self, model: Transformer, wanted: NDArray[np.int64]) -> NDArray[np.float32]:
        """The same laws (w, V), teacher-forced in one pass without a cache."""
        end = self.num_cached
        condition = torch.stack([torch.from_numpy(self.condition), model.null_condition])  # (2, C)
        tokens = torch.from_numpy(self.tokens[:end]).expand(2, -1)
        features = torch.from_numpy(self.features[:end]).expand(2, -1, -1)
        c, u = model(condition, tokens, features if self.config.feature_dim else None)[:, wanted]
        return (c if self.guidance == 1 else u + self.guidance * (c - u)).numpy()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(4))
def test_any_split_of_any_mixture_equals_one_teacher_forced_pass(name: str, seed: int) -> None:
    config = CONFIGS[name]
    rng = np.random.default_rng(seed)
    model = make_transformer(config, seed=seed)
    runner = ModelRunner(copy.deepcopy(model), num_slots=4)
    slots = [Slot(i, config, guidance, rng) for i, guidance in enumerate([1.0, 1.5, 7.5, 1.0])]
    for _ in range(25):
        chosen = [slots[i] for i in rng.permutation(4)[: rng.integers(1, 5)]]
        segments = [slot.segment() for slot in chosen]
        for slot, segment, logits in zip(chosen, segments, runner.extend(segments), strict=True):
            assert logits.shape == (len(segment.wanted), config.vocab_size)
            assert logits.dtype == np.float32
            expected = slot.expected(model, segment.wanted)
            np.testing.assert_allclose(logits, expected, atol=1e-4 * slot.guidance, rtol=1e-4)


def test_a_reused_slot_remembers_nothing() -> None:
    model = make_transformer()
    runner = ModelRunner(copy.deepcopy(model), num_slots=1)
    rng = np.random.default_rng(0)
    first, second = Slot(0, CONFIG, 1.5, rng), Slot(0, CONFIG, 1.5, rng)
    for _ in range(8):
        runner.extend([first.segment()])
    segment = second.segment()
    assert segment.start == 0
    np.testing.assert_allclose(
        runner.extend([segment])[0], second.expected(model, segment.wanted), atol=1e-4, rtol=1e-4
    )


def test_a_feature_changes_the_laws_only_after_its_token() -> None:
    runner = ModelRunner(make_transformer(), num_slots=1)
    tokens, features = np.arange(10), np.zeros((10, R), np.float32)
    features[6] = 1.0

    def laws(features: NDArray[np.float32] | None) -> NDArray[np.float32]:
        return runner.extend([Segment(0, 2.0, np.array([1, 2, 0, 0]), 0, tokens, features, np.arange(11))])[0]

    plain, changed = laws(None), laws(features)
    np.testing.assert_allclose(plain[:7], changed[:7], atol=1e-5)
    assert (np.abs(plain[7:] - changed[7:]).max(-1) > 1e-2).all()


def test_loading_gives_the_saved_model(tiny_bundle: Path) -> None:
    loaded, made = load_transformer(tiny_bundle), make_transformer()
    condition, tokens = torch.tensor([[1, 2, 0, 0]]), torch.arange(12)[None]
    assert loaded.output.weight.dtype is torch.float32
    torch.testing.assert_close(loaded(condition, tokens), made(condition, tokens), atol=0.05, rtol=0)  # half weights


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_are_named(bundle: Path, fault: str) -> None:
    path = bundle / "cloud.safetensors"
    weights = load_file(path)
    name = "layers.1.attention.wo.weight"
    if fault == "missing":
        del weights[name]
    elif fault == "unexpected":
        name = "layers.9.surprise"
        weights[name] = torch.zeros(1)
    else:
        weights[name] = torch.zeros(3, 3)
    save_file(weights, path)
    with pytest.raises(PairMismatch, match=rf"does not fit cloud\.json at {name}$"):
        load_transformer(bundle)


def test_a_config_of_another_size_is_named(bundle: Path) -> None:
    path = bundle / "cloud.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"num_layers": 3}), encoding="utf-8")
    with pytest.raises(PairMismatch, match=r"layers\.2\."):
        load_transformer(bundle)
