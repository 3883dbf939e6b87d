"""What the cloud model is trained on: token sequences with captions.

Flows in: tokens of a data set with what its captions are made of. Flows out: batches. Knows nothing of pixels or of
models. Two kinds stand behind one interface: icons, which are painted anew in every batch, and pictures, which are as
they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ciar.shared.conditioning import CaptionVocabulary
from ciar.training.captions import Captioner, leave_out
from ciar.training.dataset import held_out_combination
from ciar.training.palette import GROUNDS, NUM_PAIRS
from ciar.training.tokenizer import colour_tokens


@dataclass(frozen=True)
class Examples:
    """Sequences with complete captions, for a held-out loss."""

    tokens: Tensor  # int64 (B, T)
    captions: Tensor  # int64 (B, C)
    other_captions: Tensor  # int64 (B, C), of another picture


class TokenSource(Protocol):
    """Sequences with captions, to be drawn from."""

    def __len__(self) -> int: ...

    def subset(self, rows: NDArray[np.int64]) -> Self:
        """The sequences of some rows."""
        ...

    def batch(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Random tokens (count, T) and training captions (count, C), words left out."""
        ...

    def examples(self, count: int, rng: np.random.Generator) -> Examples:
        """At most `count` different sequences."""
        ...


def held_out_table(vocabulary: CaptionVocabulary) -> NDArray[np.bool_]:
    """Which (concept, style, colour pair) is never trained on: bool (concepts, 2, NUM_PAIRS)."""
    concepts, styles, colours, grounds = (vocabulary.kinds[k] for k in ("concept", "style", "colour", "ground"))
    flags = [held_out_combination((c, s, f, g)) for c in concepts for s in styles for f in colours for g in grounds]
    return np.array(flags).reshape(len(concepts), len(styles), NUM_PAIRS)


@dataclass(frozen=True)
class TokenData:
    """Icons as colourless shapes with labels; colours are drawn at random, never a held-out combination."""

    shapes: Tensor
    """int64 (N, T), −1 for ground."""
    concept: NDArray[np.int64]
    style: NDArray[np.int64]
    captioner: Captioner
    held_out: NDArray[np.bool_]
    """What `held_out_table` says."""
    typical: float = 1e9
    """Drawings are preferred by their rank within the group, most typical first: weight e^(−rank/typical)."""

    def __post_init__(self) -> None:
        assert not self.held_out.all(-1).any(), "every drawing needs a colour"

    def __len__(self) -> int:
        return len(self.shapes)

    def subset(self, rows: NDArray[np.int64]) -> TokenData:
        picked = self.shapes[torch.from_numpy(rows)]
        return TokenData(picked, self.concept[rows], self.style[rows], self.captioner, self.held_out, self.typical)

    @cached_property
    def row_weights(self) -> NDArray[np.float64]:
        """Sampling weights (N,): a group of n drawings is drawn ∝ √n, its drawing of rank k ∝ e^(−k/typical).

        Drawings of a group stand in order, most typical first, as curation left them.
        """
        group = self.concept * 2 + self.style
        order = np.argsort(group, kind="stable")
        counts = np.bincount(group)
        rank = np.empty(len(group))
        rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
        weights = np.exp(-rank / self.typical)
        weights *= np.sqrt(counts[group]) / np.bincount(group, weights)[group]
        return weights / weights.sum()

    def paint(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, NDArray[np.int64]]:
        """Drawings in random colours: tokens (B, T) and labels (B, 4) = concept, style, foreground, ground."""
        pairs = rng.integers(0, NUM_PAIRS, len(rows))
        while len(barred := np.flatnonzero(self.held_out[self.concept[rows], self.style[rows], pairs])):
            pairs[barred] = rng.integers(0, NUM_PAIRS, len(barred))
        foreground, ground = np.divmod(pairs, len(GROUNDS))
        labels = np.stack([self.concept[rows], self.style[rows], foreground, ground], axis=1)
        return colour_tokens(self.shapes[torch.from_numpy(rows)], torch.from_numpy(pairs)), labels

    def batch(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        rows = rng.choice(len(self), count, p=self.row_weights)
        tokens, labels = self.paint(rows, rng)
        return tokens, torch.from_numpy(self.captioner.draw(labels, rng))

    def examples(self, count: int, rng: np.random.Generator) -> Examples:
        """The other captions differ in concept and style alone."""
        tokens, labels = self.paint(rng.permutation(len(self))[:count], rng)
        other = labels.copy()
        other[:, :2] = np.roll(labels[:, :2], 1, axis=0)
        return Examples(tokens, *(torch.from_numpy(self.captioner.full(chosen)) for chosen in (labels, other)))


@dataclass(frozen=True)
class PictureTokens:
    """Pictures as they are, all equally likely."""

    tokens: Tensor
    """int64 (N, T)."""
    captions: NDArray[np.int64]
    """Phrase ids (N, C)."""
    drop_word: float
    """Chance that a word is left out."""
    drop_caption: float
    """Chance that all are."""

    def __len__(self) -> int:
        return len(self.tokens)

    def subset(self, rows: NDArray[np.int64]) -> PictureTokens:
        return PictureTokens(
            self.tokens[torch.from_numpy(rows)], self.captions[rows], self.drop_word, self.drop_caption
        )

    def batch(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        rows = rng.integers(0, len(self), count)
        ids = self.captions[rows]
        dropped = (rng.random(ids.shape) < self.drop_word) | (rng.random((count, 1)) < self.drop_caption)
        return self.tokens[torch.from_numpy(rows)], torch.from_numpy(leave_out(ids, dropped))

    def examples(self, count: int, rng: np.random.Generator) -> Examples:
        rows = rng.permutation(len(self))[:count]
        captions = self.captions[rows]
        other = np.roll(captions, 1, axis=0)
        return Examples(self.tokens[torch.from_numpy(rows)], torch.from_numpy(captions), torch.from_numpy(other))
