"""Painted scenes: their words, their pixels, the set on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ciar.training.dataset import SplitConfig, held_out_combination
from ciar.training.picture_set import load_pictures
from ciar.training.scenes.grammar import KINDS, PLANTS_OF, WEATHER_OF, Scene, sample_scene, scene_vocabulary
from ciar.training.scenes.painter import paint_scene
from ciar.training.scenes.picture_files import scene_number, write_scenes

SCENE = Scene("hills", "day", "meadow", "clear sky")


def _paint(scene: Scene, seed: int = 0, size: int = 64) -> np.ndarray:
    return paint_scene(scene, np.random.default_rng(seed), size).astype(int)


def test_everything_in_a_scene_goes_together() -> None:
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(3000)]
    for scene in scenes:
        assert scene.weather in WEATHER_OF[scene.land]
        assert scene.plants is None or scene.plants in PLANTS_OF[scene.land]
        assert scene.boat is None or scene.water in ("lake", "sea")
        assert (scene.moon is not None) == (scene.time == "night" and scene.weather in ("clear sky", "clouds"))
    for kind, words in KINDS.items():  # every word is used
        assert {getattr(scene, kind) for scene in scenes} - {None} == set(words)


def test_every_caption_reads_back() -> None:
    vocabulary, rng = scene_vocabulary(), np.random.default_rng(0)
    for _ in range(200):
        words = sample_scene(rng).words
        ids = vocabulary.encode(" ".join(words))
        assert [vocabulary.phrases[i - 1] for i in ids if i] == sorted(words, key=vocabulary.phrases.index)
    for example in vocabulary.examples:
        vocabulary.encode(example)


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        ("snowy mountains by a lake at sunset", "mountains sunset snow lake"),
        ("At night, a half moon over the ocean", "crescent moon night sea"),
        ("foggy woods in the fall, morning", "dawn autumn fog forest"),
        ("falling snow on a hut", "snowfall cabin"),
    ],
)
def test_prompts_are_free_in_order_and_wording(prompt: str, same: str) -> None:
    vocabulary = scene_vocabulary()
    assert np.array_equal(vocabulary.encode(prompt), vocabulary.encode(same))


def test_a_picture_follows_from_scene_and_seed() -> None:
    assert np.array_equal(_paint(SCENE), _paint(SCENE))
    assert not np.array_equal(_paint(SCENE), _paint(SCENE, seed=1))
    assert _paint(SCENE, size=128).shape == (128, 128, 3)


@pytest.mark.parametrize("seed", range(3))
def test_hours_and_lands_have_their_colours(seed: int) -> None:
    def sky(time: str) -> np.ndarray:
        return _paint(replace(SCENE, time=time), seed)[:16].mean((0, 1))

    def ground(land: str) -> np.ndarray:
        return _paint(replace(SCENE, land=land), seed)[-12:].mean((0, 1))

    assert sky("night").mean() < 60 < sky("sunset").mean() < sky("day").mean()
    assert sky("sunset")[0] > sky("day")[0]
    assert ground("snow").min() > 190
    assert ground("meadow").argmax() == 1
    assert ground("autumn").argmax() == 0
    assert ground("autumn").mean() < ground("desert").mean() < ground("snow").mean()


@pytest.mark.parametrize(
    ("without", "more"),
    [
        (SCENE, {"cabin": "cabin"}),
        (SCENE, {"plants": "pines"}),
        (SCENE, {"plants": "trees"}),
        (SCENE, {"plants": "forest"}),
        (replace(SCENE, land="desert"), {"plants": "cactus"}),
        (replace(SCENE, water="lake"), {"boat": "boat"}),
        (SCENE, {"water": "river"}),
        (SCENE, {"water": "sea"}),
        (replace(SCENE, time="night", moon="full moon"), {"moon": "crescent moon"}),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_thing_can_be_seen(without: Scene, more: dict[str, str], seed: int) -> None:
    apart = np.abs(_paint(without, seed) - _paint(replace(without, **more), seed)).max(-1)
    assert (apart > 25).mean() > 0.003


@pytest.mark.parametrize("weather", ["fog", "rain", "snowfall", "clouds"])
def test_weather_changes_the_sky(weather: str) -> None:
    clear, other = replace(SCENE, land="snow"), replace(SCENE, land="snow", weather=weather)
    assert (np.abs(_paint(clear)[:32] - _paint(other)[:32]).max(-1) > 20).mean() > 0.1


def test_a_set_on_disk(tmp_path: Path) -> None:
    lines = write_scenes(tmp_path, 120, 32, SplitConfig(held_out_share=0.1), seed=3)
    assert "120 scenes" in lines[0]
    data = load_pictures(tmp_path)
    assert data.images.shape == (120, 32, 32, 3)
    assert (np.diff(data.split) >= 0).all()  # a split is one piece
    assert set(data.split.tolist()) == {0, 1, 2}
    for row, key in enumerate(data.keys):
        scene, rng = scene_number(int(key.split(":")[1]), 3)
        assert (data.split[row] == 2) == held_out_combination(scene.words)
        assert np.array_equal(data.images[row], paint_scene(scene, rng, 32))
        assert data.prompt(row) == " ".join(scene.words)
    lines = {name: set((tmp_path / f"{name}.txt").read_text().splitlines()) for name in ("prompts", "held_out_prompts")}
    assert not lines["prompts"] & lines["held_out_prompts"]
    assert lines["held_out_prompts"] >= {data.prompt(row) for row in data.rows("held_out_sets")}
