"""A judge of painted scenes: which words of the grammar a picture shows, and how many of its caption's it does.

Flows in: pictures of any model, with the scenes that were asked for. Flows out: shares of confirmed facts, by kind.
Knows nothing of models. A small classifier (`PictureTower`), trained on fresh pictures whose scenes are known; its own
accuracy on others is part of what it says.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ciar.benchmarks.evaluation.judges import PictureTower, fit, save_whole
from ciar.training.scenes.grammar import KINDS, Scene
from ciar.training.scenes.painter import paint_scene
from ciar.training.scenes.picture_files import scene_number

Pictures = NDArray[np.uint8]
NONE = 0
"""Label of a kind of which a scene has no word; a word's label is one more than its place in its kind."""
SIDE = 64
"""Pixels to a side that the judge looks at."""
_BATCH = 128
_TRAIN_SEED = 1_000_003
"""Of pictures that no training set has."""


class SceneJudgeConfig(BaseModel):
    """How the judge is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=32, gt=0)
    """Channels of the first layer."""
    num_steps: int = Field(default=1200, gt=0)
    batch_size: int = Field(default=32, gt=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    num_checked: int = Field(default=1000, gt=0)
    """Fresh pictures on which its own accuracy is measured."""


def labels_of(scenes: Sequence[Scene]) -> NDArray[np.int64]:
    """Labels of every kind: (N, number of kinds)."""
    rows = [
        [words.index(word) + 1 if (word := getattr(s, kind)) else NONE for kind, words in KINDS.items()] for s in scenes
    ]
    return np.array(rows, np.int64)


def scene_of(prompt: str) -> Scene:
    """The scene of a complete caption, such as `Scene.words` joined."""
    return Scene(**{kind: word for kind, words in KINDS.items() for word in words if f" {word} " in f" {prompt} "})


class SceneJudge:
    """Reads the words that a picture shows."""

    def __init__(self, width: int) -> None:
        self.sizes = [len(words) + 1 for words in KINDS.values()]
        self.tower = PictureTower(3, width, sum(self.sizes))

    def logits(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Logits of every kind's labels for pixels (B, 3, 64, 64) in [-1, 1]: (B, size) each."""
        return self.tower(pixels).split(self.sizes, dim=-1)

    @torch.inference_mode()
    def read(self, pictures: Pictures) -> NDArray[np.int64]:
        """Labels of every kind for pictures (N, S, S, 3): (N, number of kinds)."""
        parts = [self.logits(look(torch.from_numpy(pictures[i : i + _BATCH]))) for i in range(0, len(pictures), _BATCH)]
        return np.concatenate([np.stack([kind.argmax(-1).numpy() for kind in part], -1) for part in parts])

    def confirmed(self, pictures: Pictures, scenes: Sequence[Scene]) -> Confirmed:
        """How many facts of the scenes the pictures show."""
        return Confirmed.of(self.read(pictures), labels_of(scenes))


def look(pictures: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) → float32 (B, 3, 64, 64) in [-1, 1]."""
    return F.interpolate(pictures.permute(0, 3, 1, 2).float(), (SIDE, SIDE), mode="area") / 127.5 - 1


@dataclass(frozen=True)
class Confirmed:
    """Shares of right facts."""

    present: dict[str, float]
    """By kind, where the scene has a word of it: the picture shows that word."""
    absent: dict[str, float]
    """By kind, where the scene has none: the picture shows none."""
    all_right: float
    """Share of pictures in which every kind is right."""

    @classmethod
    def of(cls, read: NDArray[np.int64], labels: NDArray[np.int64]) -> Confirmed:
        """From labels (N, number of kinds) that were read, and those that were asked for."""
        right, has = read == labels, labels != NONE
        shares: list[dict[str, float]] = []
        for chosen in (has, ~has):
            kinds = [(k, kind) for k, kind in enumerate(KINDS) if chosen[:, k].any()]
            shares.append({kind: float(right[chosen[:, k], k].mean()) for k, kind in kinds})
        return cls(*shares, float(right.all(1).mean()))


def prepare_scene_judge(folder: Path, config: SceneJudgeConfig | None = None) -> SceneJudge:
    """Read the judge from a folder, or train it there first (two minutes on one core).

    The file's name says of which pictures it learnt, so that a judge of yesterday's painter is not asked.
    """
    config = config or SceneJudgeConfig()
    torch.manual_seed(0)
    judge = SceneJudge(config.width)
    judge.tower.eval()
    painter = zlib.crc32(fresh(8, _TRAIN_SEED)[0].tobytes())
    path = folder / f"scene_judge-{config.width}-{config.num_steps}-{painter:08x}.pt"
    if path.is_file():
        judge.tower.load_state_dict(torch.load(path, weights_only=True))
        return judge
    generator, painted = torch.Generator().manual_seed(0), 0

    def batch_loss() -> Tensor:
        nonlocal painted
        pictures, scenes = fresh(config.batch_size, _TRAIN_SEED, painted)
        painted += len(scenes)
        pixels = roughen(look(torch.from_numpy(pictures)), generator)
        labels = torch.from_numpy(labels_of(scenes))
        return sum(F.cross_entropy(logits, labels[:, k]) for k, logits in enumerate(judge.logits(pixels)))

    fit("scene judge", judge.tower, config.num_steps, config.learning_rate, batch_loss)
    save_whole(judge.tower, path)
    return judge


def fresh(count: int, seed: int, first: int = 0, size: int = 128) -> tuple[Pictures, list[Scene]]:
    """Pictures (count, size, size, 3) of the scenes of these numbers, and the scenes."""
    made = [scene_number(number, seed) for number in range(first, first + count)]
    return np.stack([paint_scene(scene, rng, size) for scene, rng in made]), [scene for scene, _ in made]


def roughen(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, noise and a change of brightness, (B, 3, 64, 64), so that a tokenizer's traces do not matter."""
    count = len(pixels)
    blur, noise, light = (torch.rand(count, 1, 1, 1, generator=generator) for _ in range(3))
    pixels = torch.lerp(pixels, F.avg_pool2d(pixels, 3, 1, 1), (2 * blur - 1).clamp(min=0))
    return pixels + 0.08 * noise * torch.randn(pixels.shape, generator=generator) + 0.1 * (light - 0.5)


def table(columns: dict[str, Confirmed]) -> list[str]:
    """A Markdown table: a row for every kind, a column for every source of pictures."""
    lines = ["| fact | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for kind in KINDS:
        for name, part in (("", "present"), (" left out", "absent")):
            values = [getattr(column, part).get(kind) for column in columns.values()]
            if any(value is not None for value in values):
                cells = ("–" if value is None else f"{value:.3f}" for value in values)
                lines.append(f"| {kind}{name} | {' | '.join(cells)} |")
    return [*lines, "| all of a picture | " + " | ".join(f"{c.all_right:.3f}" for c in columns.values()) + " |"]
