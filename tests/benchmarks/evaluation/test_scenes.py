"""The report on a run of scenes: which captions, which columns, which distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ciar.benchmarks.evaluation.scene_judge import Confirmed, fresh, labels_of
from ciar.benchmarks.evaluation.scenes import CONFIG, held_out_prompts, report
from ciar.training.picture_set import HELD_OUT_PROMPTS
from ciar.training.pipeline import Run
from ciar.training.settings import RunPaths, load_config


def test_held_out_prompts_differ_and_follow_the_seed(tmp_path: Path) -> None:
    run = Run(load_config(CONFIG), RunPaths(tmp_path))
    run.paths.data.mkdir()
    (run.paths.data / HELD_OUT_PROMPTS).write_text("".join(f"prompt {i}\n" for i in range(20)), encoding="utf-8")
    chosen = held_out_prompts(run, 8, seed=0)
    assert len(set(chosen)) == 8
    assert chosen == held_out_prompts(run, 8, seed=0) != held_out_prompts(run, 8, seed=1)


def test_distances_are_to_the_first_pictures_and_rise_with_damage() -> None:
    pictures, scenes = fresh(8, seed=5)
    labels = labels_of(scenes)
    noise = np.random.default_rng(0).integers(0, 255, pictures.shape).astype(np.uint8)
    lines = report({"fresh": Confirmed.of(labels, labels)}, {"fresh": pictures, "same": pictures, "noise": noise})
    assert "| all of a picture | 1.000 |" in lines
    same, noisy = (float(line.split("|")[2]) for line in lines[-2:])
    assert abs(same) < 1e-6 < 1 < noisy
