"""The prepared data set on disk: coverage masks with labels and split, and the credit of every set used.

Flows in: kept drawings. Flows out: `Dataset`. Knows nothing of tokens.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ciar.shared.conditioning import CaptionVocabulary
from ciar.training.curation import STYLES, Kept
from ciar.training.icons import IconSet

HELD_OUT_COMBINATIONS = 0.05
"""Share of the combinations of words that is kept from training."""
FILE = "drawings.npz"
SPLITS = ("train", "held_out_drawings", "held_out_sets")


class DatasetError(Exception):
    """The prepared data set is missing or incomplete."""


class SplitConfig(BaseModel):
    """What is kept from training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    held_out_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the drawings of the training sets, chosen by a hash of their key."""
    held_out_sets: tuple[str, ...] = ()
    """Prefixes of icon sets of which nothing is trained on."""


@dataclass(frozen=True)
class Dataset:
    """Masks and labels, aligned by row."""

    masks: NDArray[np.uint8]  # (N, 64, 64) coverage
    concept: NDArray[np.int64]  # (N,)
    style: NDArray[np.int64]  # (N,)
    split: NDArray[np.int64]  # (N,) index into SPLITS
    keys: tuple[str, ...]
    vocabulary: CaptionVocabulary

    @property
    def concepts(self) -> tuple[str, ...]:
        return self.vocabulary.kinds["concept"]

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers of a split."""
        return np.flatnonzero(self.split == SPLITS.index(split))


def split_of(key: str, config: SplitConfig) -> int:
    """Index into SPLITS of a drawing: depends on its key alone, so it survives any change of the selection."""
    if key.split(":")[0] in config.held_out_sets:
        return 2
    return int(zlib.crc32(key.encode()) % 10_000 < config.held_out_share * 10_000)


def held_out_combination(words: Sequence[str]) -> bool:
    """Whether nothing is to be trained on this combination of words, about one in twenty: by a hash of the words alone.

    words: one of every kind, such as ("heart", "filled", "red", "on cream"), in any order.
    """
    return zlib.crc32(" ".join(sorted(words)).encode()) % 10_000 < HELD_OUT_COMBINATIONS * 10_000


def write_dataset(
    folder: Path, kept: list[Kept], vocabulary: CaptionVocabulary, sets: dict[str, IconSet], config: SplitConfig
) -> Dataset:
    """Write masks, captions.json and credits.json; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    concepts = vocabulary.kinds["concept"]
    data = Dataset(
        masks=np.stack([k.drawing.mask for k in kept]),
        concept=np.array([concepts.index(k.drawing.concept) for k in kept]),
        style=np.array([STYLES.index(k.style) for k in kept]),
        split=np.array([split_of(k.drawing.key, config) for k in kept]),
        keys=tuple(k.drawing.key for k in kept),
        vocabulary=vocabulary,
    )
    np.savez_compressed(
        folder / FILE,
        masks=data.masks, concept=data.concept, style=data.style, split=data.split, keys=np.array(data.keys),
    )  # fmt: skip
    (folder / "captions.json").write_text(vocabulary.model_dump_json(indent=1), encoding="utf-8")
    used = Counter(key.split(":")[0] for key in data.keys)
    credits = [asdict(sets[prefix]) | {"drawings": count} for prefix, count in sorted(used.items())]
    (folder / "credits.json").write_text(json.dumps(credits, indent=1), encoding="utf-8")
    return data


def load_dataset(folder: Path) -> Dataset:
    """Read a prepared data set. Raises DatasetError if there is none."""
    path = folder / FILE
    if not path.is_file():
        raise DatasetError(f"{path} is missing: run the `data` command first")
    with np.load(path) as held:
        return Dataset(
            masks=held["masks"],
            concept=held["concept"],
            style=held["style"],
            split=held["split"],
            keys=tuple(held["keys"].tolist()),
            vocabulary=CaptionVocabulary.load(folder / "captions.json"),
        )
