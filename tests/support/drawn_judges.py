"""A prepared data set of shapes drawn by code, and judges that learn it in seconds."""

from __future__ import annotations

from pathlib import Path

from ciar.benchmarks.evaluation.judges import JudgeConfig
from ciar.training.captions import build_vocabulary
from ciar.training.dataset import SplitConfig, write_dataset
from ciar.training.drawn import SET, SHAPES, draw_all

CONFIG = JudgeConfig(width=8, embedding=16, concept_steps=60, caption_steps=120, batch_size=32)


def write_drawings(folder: Path, per_group: int, seed: int, held_out_share: float = 0.2) -> None:
    """`per_group` drawings of every shape and style."""
    split = SplitConfig(held_out_share=held_out_share)
    vocabulary = build_vocabulary(sorted(SHAPES), {}, length=6)
    write_dataset(folder, draw_all(per_group, seed), vocabulary, {SET.prefix: SET}, split)
