"""Writes a set of painted scenes into the folder of a run.

Flows in: how many, of what size. Flows out: a prepared set of pictures (`picture_set`). A picture is a function
of (seed, its number).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from ciar.training.dataset import SPLITS, SplitConfig, held_out_combination, split_of
from ciar.training.icons import IconSet
from ciar.training.picture_set import IMAGES, PictureSet, write_labels
from ciar.training.scenes.grammar import Scene, sample_scene, scene_vocabulary
from ciar.training.scenes.painter import paint_scene

SET = IconSet("scenes", "Painted by code", "this project", "", "Apache-2.0", "")


def scene_number(number: int, seed: int) -> tuple[Scene, np.random.Generator]:
    """The scene of that number, and the generator that paints the rest of it."""
    rng = np.random.default_rng((seed, number))
    return sample_scene(rng), rng


def split_of_scene(scene: Scene, number: int, config: SplitConfig) -> int:
    """Index into SPLITS: scenes whose combination of words is held out are the third, as held-out sets of icons are."""
    return 2 if held_out_combination(scene.words) else split_of(f"{SET.prefix}:{number}", config)


def write_scenes(folder: Path, count: int, size: int, split: SplitConfig, seed: int) -> list[str]:
    """Paint and write; returns lines to print.

    Rows are sorted by split, so that a split is one piece of the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = scene_vocabulary()
    scenes = [scene_number(number, seed)[0] for number in range(count)]
    splits = np.array([split_of_scene(scene, number, split) for number, scene in enumerate(scenes)])
    order = np.argsort(splits, kind="stable")
    images = np.lib.format.open_memmap(folder / IMAGES, "w+", np.uint8, (count, size, size, 3))
    for row, number in enumerate(tqdm(order.tolist(), desc="paint", unit="picture", mininterval=5)):
        images[row] = paint_scene(*scene_number(number, seed), size)
    data = PictureSet(
        images=images,
        captions=np.stack([vocabulary.encode(" ".join(scenes[number].words)) for number in order]),
        split=splits[order],
        keys=tuple(f"{SET.prefix}:{number}" for number in order),
        vocabulary=vocabulary,
    )
    write_labels(folder, data, {SET.prefix: SET})
    counts = ", ".join(f"{name} {len(data.rows(name))}" for name in SPLITS)
    return [f"{count} scenes, {len(vocabulary.phrases)} words; {counts}"]
