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
    cached_indices,
    detail_weights,
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
    return TokenizerTrainer(kind, SHAPE, _images(kind), _images(kind)[:2], _config(**changes), folder, CPU)


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


def test_pictures_train_in_bfloat16_with_weight_on_detail(tmp_path: Path) -> None:
    trainer = _trainer("pictures", tmp_path, num_steps=150, learning_rate=1e-2, precision="bfloat16", detail_weight=1.0)
    before = trainer.figures()["held_out/psnr_db"]
    trainer.run()
    assert trainer.figures()["held_out/psnr_db"] > before + 1
    assert all(p.dtype == torch.float32 for p in trainer.tokenizer.parameters())


def test_detail_weights_are_for_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer_training\.detail_weight"):
        _trainer("icons", tmp_path, detail_weight=1.0)


def test_busy_and_dark_places_weigh_more() -> None:
    images = torch.full((2, 3, 32, 32), 0.8)
    images[0, :, 8:16, 8:16] = 0.2  # an edge in the first picture
    images[1] = 0.1
    weights = detail_weights(images, 1.0)
    assert weights is not None
    assert weights.shape == (2, 1, 32, 32)
    assert weights[0, 0, 8, 8] > 2 * weights[0, 0, 30, 30]
    assert weights[1, 0, 30, 30] > 2 * weights[0, 0, 30, 30]
    assert detail_weights(images, 0.0) is None


def test_tokens_are_kept_until_the_encoder_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tokenizer, images, path = PictureTokenizer(SHAPE).eval(), _images("pictures"), tmp_path / "tokens.pt"
    first = cached_indices(tokenizer, images, CPU, path)
    monkeypatch.setattr(PictureTokenizer, "indices", lambda *_: pytest.fail("computed again"))
    with torch.no_grad():
        tokenizer.decoder.stem.weight.add_(1.0)  # a decoder that was trained further
    assert torch.equal(cached_indices(tokenizer, images, CPU, path), first)
    monkeypatch.undo()
    tokenizer.quantizer.codes.copy_(tokenizer.quantizer.codes.flip(0))
    assert torch.equal(cached_indices(tokenizer, images, CPU, path), len(tokenizer.quantizer.codes) - 1 - first)
