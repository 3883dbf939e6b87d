"""The drafter on a tiny random graph: neighbours, and a cache that survives rollbacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ciar.device_client.decoder import Decoder
from ciar.device_client.drafter import Drafter
from ciar.shared.bundle import Manifest
from ciar.shared.errors import PairMismatch
from tests.device_client.tiny_graphs import write_decoder

TOKENS = np.random.default_rng(0).integers(0, 16, 16)


@pytest.fixture
def drafter(device_folder: Path, manifest: Manifest) -> Drafter:
    drafter = Drafter(device_folder / "drafter.onnx", manifest)
    drafter.reset((1, 2, 0))
    return drafter


def step_all(drafter: Drafter, start: int = 0) -> list[np.ndarray]:
    return [drafter.step(TOKENS, position).center.copy() for position in range(start, 16)]


def test_reading_is_stepping(drafter: Drafter) -> None:
    stepped = step_all(drafter)
    drafter.reset((1, 2, 0))
    drafter.read(TOKENS, 0, 9)
    np.testing.assert_allclose(step_all(drafter, 9), stepped[9:], rtol=1e-4, atol=1e-5)


def test_a_step_does_not_see_what_comes_after_it(drafter: Drafter) -> None:
    first = drafter.step(TOKENS, 0).center.copy()
    step_all(drafter)
    np.testing.assert_array_equal(drafter.step(TOKENS, 0).center, first)


def test_after_a_rollback_nothing_is_left_of_what_was_discarded(drafter: Drafter) -> None:
    stepped = step_all(drafter)
    other = (TOKENS + 1) % 16
    for position in range(6, 16):
        drafter.step(np.where(np.arange(16) < 6, TOKENS, other), position)
    np.testing.assert_array_equal(step_all(drafter, 6), stepped[6:])


def test_pictures_and_conditions_do_not_mix(drafter: Drafter) -> None:
    stepped = step_all(drafter)
    drafter.reset((3, 4, 5))
    assert not np.allclose(step_all(drafter), stepped)
    drafter.reset((1, 2, 0))
    np.testing.assert_array_equal(step_all(drafter), stepped)


def test_scores_are_those_of_the_graph(drafter: Drafter) -> None:
    proposal = drafter.step(TOKENS, 0)
    assert proposal.center.shape == (16,)
    assert proposal.feature.shape == (3,)
    ambiguity, disparity, uncertainty, center = proposal.scores
    assert center is not None
    assert np.array_equal(center, proposal.center)
    assert uncertainty == pytest.approx(ambiguity * disparity, rel=1e-5)
    assert ambiguity > 0


def test_a_graph_of_another_size_is_refused(device_folder: Path, manifest: Manifest) -> None:
    with pytest.raises(PairMismatch, match="cache_key has shape"):
        Drafter(device_folder / "drafter.onnx", manifest.model_copy(update={"grid_height": 5}))


def test_something_else_is_refused(device_folder: Path, manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(PairMismatch, match="inputs are"):
        Drafter(device_folder / "decoder.onnx", manifest)
    (tmp_path / "noise").write_bytes(b"noise")
    with pytest.raises(PairMismatch, match="cannot load"):
        Decoder(tmp_path / "noise")


def test_the_decoder_gives_pixels(tmp_path: Path) -> None:
    write_decoder(tmp_path / "decoder.onnx")
    image = Decoder(tmp_path / "decoder.onnx")(np.zeros(16, np.int64))
    assert (image.size, image.mode) == ((8, 8), "RGB")
    assert image.getcolors() == [(64, image.getpixel((0, 0)))]
