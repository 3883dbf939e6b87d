"""The drafter on a tiny random graph: neighbours, and a cache that survives rollbacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ciar.device_client.decoder import Decoder
from ciar.device_client.drafter import Drafter
from ciar.shared.bundle import Manifest, embedded_bundle, load_manifest
from ciar.shared.errors import PairMismatch
from tests.device_client.tiny_graphs import write_decoder

TOKENS = np.random.default_rng(0).integers(0, 16, 16)


@pytest.fixture
def drafter(device_folder: Path, manifest: Manifest) -> Drafter:
    drafter = Drafter(device_folder / "drafter.onnx", manifest)
    drafter.reset((1, 2, 0))
    return drafter


def step_all(drafter: Drafter, start: int = 0) -> list[np.ndarray]:
    return [drafter.evaluate(TOKENS, position, position + 1).centers[0].copy() for position in range(start, 16)]


@pytest.mark.parametrize("num_rows", [2, 5, 16])
def test_a_window_says_what_single_rows_say(drafter: Drafter, num_rows: int) -> None:
    stepped = step_all(drafter)
    drafter.reset((1, 2, 0))
    for start in range(0, 16, num_rows):
        end = min(16, start + num_rows)
        centers = drafter.evaluate(TOKENS, start, end).centers
        np.testing.assert_allclose(centers, stepped[start:end], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 8, 32, 256])
def test_the_embedded_drafters_rows_do_not_see_each_other(num_rows: int) -> None:
    """Bit for bit: a token must not depend on how many others were evaluated with it."""
    manifest = load_manifest(embedded_bundle())
    drafter = Drafter(embedded_bundle() / "drafter.onnx", manifest)
    tokens = np.random.default_rng(3).integers(0, manifest.vocab_size, manifest.num_tokens)
    condition = [1] * manifest.caption_length

    def evaluate(size: int) -> list[np.ndarray]:
        drafter.reset(condition)
        parts = []
        for start in range(0, manifest.num_tokens, size):
            proposals = drafter.evaluate(tokens, start, min(manifest.num_tokens, start + size))
            parts.append([array.copy() for array in proposals])
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    for found, expected in zip(evaluate(num_rows), evaluate(16), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_row_does_not_see_what_comes_after_it(drafter: Drafter) -> None:
    first = drafter.evaluate(TOKENS, 0, 1).centers[0].copy()
    step_all(drafter)
    np.testing.assert_array_equal(drafter.evaluate(TOKENS, 0, 1).centers[0], first)


def test_after_a_rollback_nothing_is_left_of_what_was_discarded(drafter: Drafter) -> None:
    stepped = step_all(drafter)
    other = np.where(np.arange(16) < 6, TOKENS, (TOKENS + 1) % 16)
    drafter.evaluate(other, 6, 16)
    np.testing.assert_array_equal(step_all(drafter, 6), stepped[6:])


def test_pictures_and_conditions_do_not_mix(drafter: Drafter) -> None:
    stepped = step_all(drafter)
    drafter.reset((3, 4, 5))
    assert not np.allclose(step_all(drafter), stepped)
    drafter.reset((1, 2, 0))
    np.testing.assert_array_equal(step_all(drafter), stepped)


def test_scores_are_those_of_the_graph(drafter: Drafter) -> None:
    proposals = drafter.evaluate(TOKENS, 0, 4)
    assert proposals.centers.shape == (4, 16)
    assert proposals.features.shape == (4, 3)
    ambiguity, disparity, uncertainty, center = proposals.scores(2)
    assert center is not None
    assert np.array_equal(center, proposals.centers[2])
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
