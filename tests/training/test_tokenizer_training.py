"""Training of both tokenizers: exact resumption, refusal, figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ciar.training.drawn import draw
from ciar.training.picture_tokenizer import PictureTokenizer
from ciar.training.run_state import TrainingRun
from ciar.training.tokenizer import Tokenizer, TokenizerConfig
from ciar.training.tokenizer_training import (
    DecoderTrainer,
    TokenizerTrainer,
    TokenizerTrainingConfig,
    evaluate,
    load_tokenizer,
    save_tokenizer,
)

SHAPE = TokenizerConfig(vocab_size=64, encoder_width=8, decoder_width=8, num_blocks=1)
CPU = torch.device("cpu")


def _images(kind: str) -> torch.Tensor:
    masks = np.stack([draw(s, "filled", r) for s in ("circle", "cross") for r in (16, 20, 24)])
    if kind == Tokenizer.kind:
        return torch.from_numpy(masks)
    colours = np.array([[200, 30, 30], [30, 30, 200]], np.uint8)[[0, 0, 0, 1, 1, 1]]
    return torch.from_numpy((masks[:, None] / 255 * colours[:, :, None, None]).astype(np.uint8))


def _config(**changes: float) -> TokenizerTrainingConfig:
    return TokenizerTrainingConfig(**{"num_steps": 6, "batch_size": 4} | changes)


def _trainer(kind: str, folder: Path, **changes: float) -> TokenizerTrainer:
    return TokenizerTrainer(kind, SHAPE, _images(kind), _config(**changes), folder, CPU)


def _refiner(kind: str, folder: Path, **changes: float) -> DecoderTrainer:
    torch.manual_seed(0)
    tokenizer = (Tokenizer if kind == Tokenizer.kind else PictureTokenizer)(SHAPE)
    return DecoderTrainer(tokenizer, _images(kind), _config(**changes), folder, CPU)


@pytest.mark.parametrize("kind", ["icons", "pictures"])
@pytest.mark.parametrize("make", [_trainer, _refiner])
def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(make: Callable, kind: str, tmp_path: Path) -> None:
    straight = make(kind, tmp_path / "straight")
    begun = {name: value.clone() for name, value in straight.tokenizer.state_dict().items()}
    straight.run()
    make(kind, tmp_path / "stopped").run(until=0.5)
    second = make(kind, tmp_path / "stopped")
    assert second.state.resume()
    assert second.state.step == 3
    second.run()
    expected = straight.tokenizer.state_dict()
    assert not all(torch.equal(value, begun[name]) for name, value in expected.items())
    for name, value in second.tokenizer.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_refining_leaves_encoder_and_codebook_alone(tmp_path: Path) -> None:
    refiner = _refiner("pictures", tmp_path)
    before = {name: value.clone() for name, value in refiner.tokenizer.state_dict().items()}
    refiner.run()
    changed = {name for name, value in refiner.tokenizer.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)


def test_another_configuration_is_refused_by_field(tmp_path: Path) -> None:
    _trainer("icons", tmp_path).state.save()
    with pytest.raises(ValueError, match=r"training\.batch_size was 4 and is 5"):
        _trainer("icons", tmp_path, batch_size=5).state.resume()
    with pytest.raises(ValueError, match="kind was icons and is pictures"):
        _trainer("pictures", tmp_path).state.resume()


def test_refining_another_codebook_is_refused(tmp_path: Path) -> None:
    first = _refiner("icons", tmp_path)
    first.state.save()
    torch.manual_seed(1)
    other = DecoderTrainer(Tokenizer(SHAPE), _images("icons"), _config(), tmp_path, CPU)
    assert isinstance(other.state, TrainingRun)
    with pytest.raises(ValueError, match="codebook"):
        other.state.resume()


@pytest.mark.parametrize("kind", ["icons", "pictures"])
def test_training_learns_and_the_file_keeps_it(kind: str, tmp_path: Path) -> None:
    trainer = _trainer(kind, tmp_path, num_steps=150, learning_rate=1e-2)
    before = evaluate(trainer.tokenizer, _images(kind))
    tokenizer = trainer.run()
    after = evaluate(tokenizer, _images(kind))
    assert after.psnr_db > before.psnr_db + 1
    assert (after.ground_share > 0) == (kind == "icons")
    save_tokenizer(tokenizer, tmp_path / "tokenizer.pt")
    loaded = load_tokenizer(tmp_path / "tokenizer.pt")
    assert loaded.kind == kind
    assert evaluate(loaded, _images(kind)) == after
