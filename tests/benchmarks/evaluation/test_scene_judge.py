"""The judge of scenes: labels, shares, what it learns in a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ciar.benchmarks.evaluation.scene_judge import (
    Confirmed,
    SceneJudge,
    SceneJudgeConfig,
    fresh,
    labels_of,
    prepare_scene_judge,
    scene_of,
    table,
)
from ciar.training.scenes.grammar import KINDS, Scene, sample_scene

SCENE = Scene("hills", "night", "snow", "clear sky", water="lake", moon="full moon")


def test_a_scene_reads_back_from_its_caption() -> None:
    rng = np.random.default_rng(0)
    for scene in (SCENE, *(sample_scene(rng) for _ in range(300))):
        assert scene_of(" ".join(scene.words)) == scene


def test_labels_name_words_and_their_absence() -> None:
    labels = dict(zip(KINDS, labels_of([SCENE])[0].tolist(), strict=True))
    assert labels == {
        "relief": 2, "time": 4, "land": 3, "weather": 1, "water": 1, "moon": 1, "plants": 0, "cabin": 0, "boat": 0,
    }  # fmt: skip


def test_confirmed_facts_never_always_and_sometimes() -> None:
    labels = labels_of([SCENE, SCENE])
    wrong = np.where(labels == 0, 1, 0)
    half = np.stack([labels[0], wrong[1]])
    for read, share in ((labels, 1.0), (wrong, 0.0), (half, 0.5)):
        found = Confirmed.of(read, labels)
        assert set(found.present.values()) == set(found.absent.values()) == {share}
        assert found.all_right == share
    assert set(found.absent) == {"plants", "cabin", "boat"}
    assert "| cabin left out | 0.500 |" in table({"x": found})


def test_a_judge_learns_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SceneJudgeConfig(width=8, num_steps=40, batch_size=16)
    judge = prepare_scene_judge(tmp_path, config)
    pictures, scenes = fresh(64, seed=7)
    found = judge.confirmed(pictures, scenes)
    assert found.present["time"] > 0.6
    assert found.present["time"] > SceneJudge(8).confirmed(pictures, scenes).present["time"]
    monkeypatch.setattr("ciar.benchmarks.evaluation.scene_judge.fit", lambda *_: pytest.fail("trained again"))
    again = prepare_scene_judge(tmp_path, config)
    assert np.array_equal(again.read(pictures), judge.read(pictures))
