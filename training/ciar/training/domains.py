"""The two kinds of data that a run can be about: icons that are painted, and pictures as they are.

Flows in: a prepared data set. Flows out: what the steps of a run need of it, behind one interface: images for the
tokenizer, a `TokenSource` for the cloud model, prompts for a contact sheet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ciar.training.captions import Captioner
from ciar.training.dataset import SPLITS, Dataset, DatasetError, load_dataset
from ciar.training.picture_set import FILE, PictureSet, load_pictures
from ciar.training.picture_tokenizer import PictureTokenizer
from ciar.training.settings import RunConfig
from ciar.training.token_data import PictureTokens, TokenData, TokenSource, held_out_table
from ciar.training.tokenizer import Tokenizer

NUM_SAMPLES = 48
"""Pictures on a contact sheet of captions that people wrote."""


class Domain(Protocol):
    """A kind of data."""

    tokenizer_kind: str

    @property
    def dataset(self) -> Dataset | PictureSet: ...

    @property
    def images(self) -> Tensor:
        """All images: uint8, coverage (N, H, W) or RGB (N, 3, H, W)."""
        ...

    def source(self, indices: Tensor) -> TokenSource:
        """All sequences to train on, of codebook indices (N, T)."""
        ...

    def sample_prompts(self) -> list[str]:
        """Prompts for a contact sheet."""
        ...


@dataclass(frozen=True)
class IconDomain:
    """Drawings in all colours."""

    dataset: Dataset
    config: RunConfig
    tokenizer_kind = Tokenizer.kind

    @property
    def images(self) -> Tensor:
        return torch.from_numpy(self.dataset.masks)

    def source(self, indices: Tensor) -> TokenSource:
        data = self.dataset
        captioner = Captioner(len(data.concepts), self.config.captions)
        barred = held_out_table(data.vocabulary)
        return TokenData(indices, data.concept, data.style, captioner, barred, self.config.cloud_training.typical)

    def sample_prompts(self) -> list[str]:
        """One prompt for every concept, styles and colours in turn."""
        kinds = self.dataset.vocabulary.kinds
        has = {(int(c), int(s)) for c, s in zip(self.dataset.concept, self.dataset.style, strict=True)}
        prompts = []
        for i, concept in enumerate(kinds["concept"]):
            style = i % 2 if (i, i % 2) in has else 1 - i % 2
            words = kinds["colour"][i % len(kinds["colour"])], kinds["style"][style], concept
            prompts.append(" ".join((*words, kinds["ground"][(i * 5 + i // 6) % len(kinds["ground"])])))
        return prompts


@dataclass(frozen=True)
class PictureDomain:
    """Pictures with captions that people wrote."""

    dataset: PictureSet
    config: RunConfig
    tokenizer_kind = PictureTokenizer.kind

    @property
    def images(self) -> Tensor:
        return torch.from_numpy(self.dataset.images).permute(0, 3, 1, 2)

    def source(self, indices: Tensor) -> TokenSource:
        captions = self.config.captions
        return PictureTokens(indices, self.dataset.captions, captions.drop_word, captions.drop_caption)

    def sample_prompts(self) -> list[str]:
        """Captions of the data, evenly picked: held-out ones first, where there are any."""
        rows = np.concatenate([self.dataset.rows(name) for name in (*SPLITS[1:], "train")])
        prompts = list(dict.fromkeys(self.dataset.prompt(row) for row in rows))
        return prompts[:NUM_SAMPLES]


def load_domain(folder: Path, config: RunConfig) -> Domain:
    """The data set that was prepared in a folder.

    Raises DatasetError if there is none, if its pictures have not the size of the tokenizer's grid, or if it leaves
    nothing to train on or to check with.
    """
    domain: Domain
    if (folder / FILE).is_file():
        domain = PictureDomain(load_pictures(folder), config)
    else:
        domain = IconDomain(load_dataset(folder), config)
    size, expected = domain.images.shape[-1], config.tokenizer.image_size
    if size != expected:
        raise DatasetError(
            f"tokenizer.grid: {config.tokenizer.grid} means pictures of {expected} pixels, the data set has {size}: "
            f"set it to {size // config.tokenizer.stride}, or run the `data` command again"
        )
    require_splits(domain.dataset.split)
    return domain


def require_splits(split: NDArray[np.int64]) -> None:
    """Raises DatasetError if nothing is left to train on, or nothing held out."""
    num_held_out = int((split > 0).sum())
    if num_held_out in (0, len(split)):
        raise DatasetError(
            f"data.split: {num_held_out} of {len(split)} pictures are held out; "
            f"{'lower' if num_held_out else 'raise'} held_out_share, or bring more pictures"
        )
