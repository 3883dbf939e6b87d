"""A prepared set of captioned pictures on disk: the counterpart of `training.dataset` for data that is not painted.

Flows in: pictures with captions that people wrote. Flows out: `PictureSet`, and the credit of every set used. Knows
nothing of tokens, nor of where the pictures come from.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ciar.shared.conditioning import CaptionVocabulary
from ciar.training.captions import CaptionConfig, caption_words, word_vocabulary
from ciar.training.dataset import SPLITS, DatasetError, SplitConfig, split_of
from ciar.training.icons import IconSet

FILE = "pictures.npz"
IMAGES = "images.npy"
"""Pixels; read page by page, so a set may be larger than the memory."""
PROMPTS = "prompts.txt"
"""The training captions, one a line: what the cloud model is asked for when a drafter is made."""

HELD_OUT_PROMPTS = "held_out_prompts.txt"
"""Captions that no training picture has."""


@dataclass(frozen=True)
class Picture:
    """One picture before it is written."""

    key: str
    """`set:name`, unique."""
    image: NDArray[np.uint8]
    """(S, S, 3)."""
    caption: str


@dataclass(frozen=True)
class PictureSet:
    """Pictures and captions, aligned by row."""

    images: NDArray[np.uint8]  # (N, S, S, 3)
    captions: NDArray[np.int64]  # (N, C) phrase ids
    split: NDArray[np.int64]  # (N,) index into SPLITS
    keys: tuple[str, ...]
    vocabulary: CaptionVocabulary

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers of a split."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def prompt(self, row: int) -> str:
        """The words of a picture's caption that the vocabulary has, in its order."""
        return " ".join(self.vocabulary.phrases[i - 1] for i in self.captions[row] if i)


def square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """A picture upright, on white where it is transparent, its middle square scaled: uint8 (size, size, 3)."""
    image = ImageOps.exif_transpose(image).convert("RGBA")
    image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


def write_pictures(
    folder: Path, pictures: list[Picture], captions: CaptionConfig, sets: dict[str, IconSet], split: SplitConfig
) -> tuple[PictureSet, list[str]]:
    """Write pictures, captions.json, prompts.txt and credits.json; returns what was written and lines to print.

    Pictures whose words are all too rare are left out. Raises DatasetError for a caption with too many words (it names
    the picture), and ValueError if no word is frequent enough.
    """
    vocabulary = word_vocabulary([p.caption for p in pictures], captions.length, captions.min_count)
    known = set(vocabulary.phrases)
    words = {p.key: [w for w in caption_words(p.caption) if w in known] for p in pictures}
    for key, chosen in words.items():
        if len(chosen) > vocabulary.length:
            raise DatasetError(
                f"{key}: the caption has {len(chosen)} words, more than the {vocabulary.length} of captions.length; "
                "shorten it, or raise captions.length"
            )
    kept = [p for p in pictures if words[p.key]]
    data = PictureSet(
        images=np.stack([p.image for p in kept]),
        captions=np.stack([vocabulary.encode(" ".join(words[p.key])) for p in kept]),
        split=np.array([split_of(p.key, split) for p in kept]),
        keys=tuple(p.key for p in kept),
        vocabulary=vocabulary,
    )
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / IMAGES, data.images)
    write_labels(folder, data, sets)
    rare = len(pictures) - len(kept)
    lines = [f"{rare} pictures left out: no word of theirs is in {captions.min_count} captions"] if rare else []
    counts = ", ".join(f"{name} {len(data.rows(name))}" for name in SPLITS)
    return data, [*lines, f"{len(kept)} pictures, {len(known)} words, at most {vocabulary.length} each; {counts}"]


def write_labels(folder: Path, data: PictureSet, sets: dict[str, IconSet]) -> None:
    """Write all but the pixels: captions, split, vocabulary, the prompts of the training captions, credits."""
    np.savez_compressed(folder / FILE, captions=data.captions, split=data.split, keys=np.array(data.keys))
    (folder / "captions.json").write_text(data.vocabulary.model_dump_json(indent=1), encoding="utf-8")
    trained, others = ({data.prompt(row) for row in np.flatnonzero(part)} for part in (data.split == 0, data.split > 0))
    for name, prompts in ((PROMPTS, trained), (HELD_OUT_PROMPTS, others - trained)):
        (folder / name).write_text("".join(f"{prompt}\n" for prompt in sorted(prompts)), encoding="utf-8")
    used = Counter(key.split(":")[0] for key in data.keys)
    credits = [asdict(sets[prefix]) | {"drawings": count} for prefix, count in sorted(used.items())]
    (folder / "credits.json").write_text(json.dumps(credits, indent=1), encoding="utf-8")


def load_pictures(folder: Path) -> PictureSet:
    """Read what `write_pictures` wrote."""
    with np.load(folder / FILE) as held:
        return PictureSet(
            images=np.load(folder / IMAGES, mmap_mode="c"),
            captions=held["captions"],
            split=held["split"],
            keys=tuple(held["keys"].tolist()),
            vocabulary=CaptionVocabulary.load(folder / "captions.json"),
        )
