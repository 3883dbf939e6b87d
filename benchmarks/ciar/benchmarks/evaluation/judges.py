"""Judges of pictures that are trained on the training drawings alone: a concept classifier and an image-caption scorer.

Flows in: a prepared data set. Flows out: `Judges`, kept on disk, with their figures on held-out drawings. Knows
nothing of modes, nor of the pair that drew a picture.

Both are ours and small: a convolutional tower over 64x64 pixels. The classifier sees coverage, so colours cannot help
it; the scorer sees colours and is trained to tell a picture's caption from captions with some words replaced, by a
contrastive loss as in CLIP (Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*,
ICML 2021).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from tqdm import tqdm

from ciar.benchmarks.evaluation.pixels import (
    NO_INK,
    Pictures,
    calibrate_style,
    paint,
    read_pixels,
    style_of_shares,
    thick_shares,
)
from ciar.shared.errors import InvalidRequest
from ciar.training.curation import STYLES
from ciar.training.dataset import SPLITS, Dataset, DatasetError, load_dataset
from ciar.training.palette import FOREGROUNDS, GROUNDS

_FORMAT = 1
"""Of the judges on disk: raised when their layers or their training change."""
_BATCH = 128  # pictures at a time when nothing is trained

Labels = NDArray[np.int64]  # (N, 4): concept, style, foreground, ground


class JudgeConfig(BaseModel):
    """How the judges are trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=32, gt=0)
    """Channels of the first layer; the last has four times as many."""
    embedding: int = Field(default=64, gt=0)
    """Dimensions in which picture and caption meet."""
    concept_steps: int = Field(default=1400, gt=0)
    caption_steps: int = Field(default=1800, gt=0)
    batch_size: int = Field(default=64, gt=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    num_wrong: int = Field(default=31, gt=0)
    """Wrong captions that the scorer is shown beside every right one."""
    seed: int = 0


@dataclass(frozen=True)
class HeldOut:
    """The judges on drawings of the held-out splits, painted in random colours."""

    num_drawings: int
    ground_right: float
    foreground_right: float
    style_right: float
    """Shares whose pixels tell the right one; the style's is 1 by construction, see `calibrate_style`."""
    all_right: float
    concept_top1: float
    concept_top5: float
    similarity: float
    """Mean cosine of picture and caption."""
    recall: float
    """Share of pictures whose own caption beats `NUM_CANDIDATES` − 1 wrong ones."""


NUM_CANDIDATES = 100
"""Captions among which a picture's own must be found."""


def corrupted(labels: Labels, count: int, sizes: tuple[int, ...], rng: np.random.Generator) -> Labels:
    """`count` wrong captions for each of labels (N, 4): (N, count, 4).

    Each of the four words is replaced by another with probability one half; at least one always is.
    """
    shape = (len(labels), count, len(sizes))
    changed = rng.random(shape) < 0.5
    one = rng.integers(0, len(sizes), shape[:2])[..., None] == np.arange(len(sizes))
    changed = np.where(changed.any(-1, keepdims=True), changed, one)
    shift = np.stack([rng.integers(1, size, shape[:2]) for size in sizes], axis=-1)
    return np.where(changed, (labels[:, None] + shift) % np.array(sizes), labels[:, None])


class PictureTower(nn.Module):
    """Pictures (B, C, 64, 64) → vectors (B, D); about 0.4 M parameters at width 32."""

    def __init__(self, channels: int, width: int, num_out: int) -> None:
        super().__init__()

        def layer(wide_in: int, wide_out: int, kernel: int, stride: int) -> list[nn.Module]:
            conv = nn.Conv2d(wide_in, wide_out, kernel, stride, kernel // 2, bias=False)
            return [conv, nn.BatchNorm2d(wide_out), nn.ReLU()]

        self.body = nn.Sequential(
            *layer(channels, width, 5, 2),  # (B, W, 32, 32)
            *layer(width, 2 * width, 3, 2),  # (B, 2W, 16, 16)
            *layer(2 * width, 3 * width, 3, 2),  # (B, 3W, 8, 8)
            *layer(3 * width, 4 * width, 3, 1),  # (B, 4W, 8, 8)
            *layer(4 * width, 4 * width, 3, 2),  # (B, 4W, 4, 4)
        )
        self.out = nn.Linear(8 * width, num_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.out(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=-1))


class CaptionScorer(nn.Module):
    """Two towers into one unit sphere: pictures (B, 3, 64, 64) and captions, bags of four words."""

    def __init__(self, sizes: tuple[int, ...], config: JudgeConfig) -> None:
        super().__init__()
        self.pictures = PictureTower(3, config.width, config.embedding)
        self.words = nn.Embedding(sum(sizes), 2 * config.embedding)
        self.mix = nn.Sequential(
            nn.Linear(2 * config.embedding, 4 * config.embedding),
            nn.ReLU(),
            nn.Linear(4 * config.embedding, config.embedding),
        )
        self.register_buffer("offsets", torch.tensor([0, *np.cumsum(sizes[:-1])]))  # (4,)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def see(self, pixels: Tensor) -> Tensor:
        """Unit vectors of pixels (B, 3, 64, 64) in [-1, 1]: (B, D)."""
        return F.normalize(self.pictures(pixels), dim=-1)

    def read(self, labels: Tensor) -> Tensor:
        """Unit vectors of captions (…, 4): (…, D)."""
        return F.normalize(self.mix(self.words(labels + self.offsets).sum(-2)), dim=-1)


@dataclass(frozen=True)
class Judges:
    """Everything that was calibrated or trained on the training split, and the drawings to compare with."""

    data: Dataset
    sizes: tuple[int, int, int, int]
    """Number of concepts, styles, foregrounds and grounds."""
    style_threshold: float
    concepts: PictureTower
    captions: CaptionScorer

    @cached_property
    def held_out(self) -> HeldOut:
        """How good the judges are on the held-out drawings, in colours drawn with a fixed seed."""
        data, rows = self.data, _rows(self.data, "held out")
        colours = _random_colours(len(rows), np.random.default_rng(0))
        labels = np.column_stack([data.concept[rows], data.style[rows], colours])  # (N, 4)
        pictures = paint(data.masks[rows], colours[:, 0], colours[:, 1])
        right, coverage = self.read(pictures, labels)
        ranks = self.concept_ranks(coverage, labels[:, 0])
        cosines = self.similarities(pictures, self.candidates(labels, seed=0))  # (N, K)
        return HeldOut(
            num_drawings=len(rows),
            ground_right=float(right[:, 2].mean()),
            foreground_right=float(right[:, 1].mean()),
            style_right=float(right[:, 0].mean()),
            all_right=float(right.all(1).mean()),
            concept_top1=float((ranks < 1).mean()),
            concept_top5=float((ranks < 5).mean()),
            similarity=float(cosines[:, 0].mean()),
            recall=recall(cosines),
        )

    def read(self, pictures: Pictures, labels: Labels) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Whether style, foreground and ground of pictures (N, 64, 64, 3) are as labelled (N, 4): (N, 3); coverage.

        A picture without ink has neither style nor foreground.
        """
        reading = read_pixels(pictures)
        style = style_of_shares(thick_shares(reading.coverage), self.style_threshold)
        style = np.where(reading.foreground == NO_INK, NO_INK, style)
        return np.column_stack([style, reading.foreground, reading.ground]) == labels[:, 1:], reading.coverage

    @torch.inference_mode()
    def concept_ranks(self, coverage: NDArray[np.uint8], concept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place of the right concept (N,) in the classifier's order for coverage (N, 64, 64), 0 first: (N,)."""
        logits = torch.cat([self.concepts(_shape_pixels(part)) for part in torch.tensor(coverage).split(_BATCH)])
        right = logits.gather(1, torch.from_numpy(concept)[:, None])  # (N, 1)
        return (logits > right).sum(1).numpy()

    @torch.inference_mode()
    def similarities(self, pictures: Pictures, captions: Labels) -> NDArray[np.float64]:
        """Cosines of pictures (N, 64, 64, 3) and captions (N, K, 4): (N, K)."""
        seen = torch.cat([self.captions.see(_colour_pixels(part)) for part in torch.tensor(pictures).split(_BATCH)])
        read = self.captions.read(torch.from_numpy(captions))  # (N, K, D)
        return torch.einsum("nd,nkd->nk", seen, read).double().numpy()

    def candidates(self, labels: Labels, seed: int) -> Labels:
        """The right caption of each of labels (N, 4), and wrong ones behind it: (N, NUM_CANDIDATES, 4)."""
        wrong = corrupted(labels, NUM_CANDIDATES - 1, self.sizes, np.random.default_rng(seed))
        return np.concatenate([labels[:, None], wrong], axis=1)


def prepare_judges(data_folder: Path, cache_folder: Path, config: JudgeConfig | None = None) -> Judges:
    """Read the judges from `cache_folder`, or train them there first (minutes on one core, with a progress bar).

    data_folder: what the data step wrote. The cache's file is named by a digest of data and configuration. Raises
    InvalidRequest, naming the command to run, if there is no data set, and for one that lacks a split.
    """
    config = config or JudgeConfig()
    try:
        data = load_dataset(data_folder)
    except DatasetError as exc:
        raise InvalidRequest(f"data: {data_folder} holds no prepared drawings; run `ciar train data` first") from exc
    for split in ("train", "held out"):
        if not len(_rows(data, split)):
            raise InvalidRequest(f"data: {data_folder} has no {split} drawings; mend data.split.held_out_share")
    judges = _untrained(data, config)
    digest = _digest(data, config)
    for name, module, train in (
        ("concepts", judges.concepts, _train_concepts),
        ("captions", judges.captions, _train_captions),
    ):
        path = cache_folder / f"{name}-{digest}.pt"
        if path.is_file():
            module.load_state_dict(torch.load(path, weights_only=True))
        else:
            train(judges, config)
            save_whole(module, path)
    return judges


def save_whole(module: nn.Module, path: Path) -> None:
    """Write the weights; a file that is there is a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    torch.save(module.state_dict(), unfinished)
    unfinished.replace(path)


def _digest(data: Dataset, config: JudgeConfig) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT, config.model_dump(), data.concepts]).encode())
    for array in (data.masks, data.concept, data.style, data.split):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _rows(data: Dataset, split: str) -> NDArray[np.int64]:
    """Row numbers of "train", or of everything "held out"."""
    is_train = data.split == SPLITS.index("train")
    return np.flatnonzero(is_train if split == "train" else ~is_train)


def _untrained(data: Dataset, config: JudgeConfig) -> Judges:
    sizes = (len(data.concepts), len(STYLES), len(FOREGROUNDS), len(GROUNDS))
    rows = _rows(data, "train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        concepts = PictureTower(1, config.width, sizes[0])
        captions = CaptionScorer(sizes, config)
    return Judges(
        data=data,
        sizes=sizes,
        style_threshold=calibrate_style(thick_shares(data.masks[rows]), data.style[rows]),
        concepts=concepts.eval(),
        captions=captions.eval(),
    )


def _shape_pixels(coverage: Tensor) -> Tensor:
    """uint8 (B, 64, 64) → float32 (B, 1, 64, 64) in [-1, 1]."""
    return coverage[:, None].float() / 127.5 - 1


def _colour_pixels(pictures: Tensor) -> Tensor:
    """uint8 (B, 64, 64, 3) → float32 (B, 3, 64, 64) in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def augment(coverage: Tensor, generator: torch.Generator) -> Tensor:
    """Move, scale, turn and squeeze drawings (B, 1, 64, 64) in [0, 1]; thicken or thin their strokes; blur."""
    count = len(coverage)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    turn, scale, squeeze = uniform(-0.1, 0.1), uniform(-0.15, 0.15).exp(), uniform(-0.06, 0.06).exp()
    wide, high = scale * squeeze, scale / squeeze
    top = torch.stack([wide * turn.cos(), -wide * turn.sin(), uniform(-0.12, 0.12)], dim=-1)  # (B, 3)
    bottom = torch.stack([high * turn.sin(), high * turn.cos(), uniform(-0.12, 0.12)], dim=-1)
    grid = F.affine_grid(torch.stack([top, bottom], dim=1), list(coverage.shape), align_corners=False)
    moved = F.grid_sample(coverage, grid, align_corners=False)
    thick, thin = F.max_pool2d(moved, 3, 1, 1), -F.max_pool2d(-moved, 3, 1, 1)
    stroke = uniform(-0.7, 0.7)[:, None, None, None]
    moved = moved + stroke.clamp(min=0) * (thick - moved) - stroke.clamp(max=0) * (thin - moved)
    blur = uniform(-0.5, 0.8).clamp(min=0)[:, None, None, None]
    return torch.lerp(moved, F.avg_pool2d(moved, 3, 1, 1), blur)


def fit(name: str, module: nn.Module, num_steps: int, learning_rate: float, batch_loss: Callable[[], Tensor]) -> None:
    """Minimise `batch_loss` with AdamW and one cycle of the learning rate; leaves the module in evaluation mode."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=num_steps)
    bar = tqdm(range(num_steps), desc=name, unit="step", disable=None)
    for step in bar:
        loss = batch_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    module.eval()


def _train_concepts(judges: Judges, config: JudgeConfig) -> None:
    generator = torch.Generator().manual_seed(config.seed)
    masks, concept, _ = _training_drawings(judges.data)

    def batch_loss() -> Tensor:
        rows = torch.randint(len(masks), (config.batch_size,), generator=generator)
        shapes = augment(masks[rows][:, None].float() / 255, generator)  # (B, 1, 64, 64)
        return F.cross_entropy(judges.concepts(2 * shapes - 1), concept[rows], label_smoothing=0.1)

    fit("concept classifier", judges.concepts, config.concept_steps, config.learning_rate, batch_loss)


def _train_captions(judges: Judges, config: JudgeConfig) -> None:
    generator = torch.Generator().manual_seed(config.seed + 1)
    rng = np.random.default_rng(config.seed + 1)
    scorer = judges.captions
    masks, concept, style = _training_drawings(judges.data)

    def batch_loss() -> Tensor:
        rows = torch.randint(len(masks), (config.batch_size,), generator=generator)
        drawn = _random_colours(len(rows), rng)
        labels = np.column_stack([concept[rows], style[rows], drawn])  # (B, 4)
        shapes = augment(masks[rows][:, None].float() / 255, generator)  # (B, 1, 64, 64)
        seen = scorer.see(_tint(shapes, drawn))  # (B, D)
        right = scorer.read(torch.from_numpy(labels))  # (B, D)
        wrong = scorer.read(torch.from_numpy(corrupted(labels, config.num_wrong, judges.sizes, rng)))  # (B, K, D)
        scale = scorer.log_scale.exp().clamp(max=100)
        same = torch.from_numpy((labels[:, None] == labels[None]).all(-1)) & ~torch.eye(len(labels), dtype=torch.bool)
        among = (scale * seen @ right.T).masked_fill(same, -torch.inf)  # (B, B)
        beside = scale * torch.einsum("bd,bkd->bk", seen, wrong)  # (B, K)
        target = torch.arange(len(labels))
        return F.cross_entropy(torch.cat([among, beside], dim=1), target) + F.cross_entropy(among.T, target)

    fit("caption scorer", scorer, config.caption_steps, config.learning_rate, batch_loss)


def _training_drawings(data: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Masks uint8 (N, 64, 64), concepts (N,) and styles (N,) of the training split."""
    rows = _rows(data, "train")
    return torch.from_numpy(data.masks[rows]), torch.from_numpy(data.concept[rows]), torch.from_numpy(data.style[rows])


def _random_colours(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Foreground and ground at random: (N, 2)."""
    return np.column_stack([rng.integers(len(FOREGROUNDS), size=count), rng.integers(len(GROUNDS), size=count)])


def _tint(shapes: Tensor, colours: NDArray[np.int64]) -> Tensor:
    """`paint` on tensors: shapes (B, 1, 64, 64) in [0, 1] → pixels (B, 3, 64, 64) in [-1, 1]."""
    above = torch.tensor(list(FOREGROUNDS.values()))[colours[:, 0]][..., None, None]  # (B, 3, 1, 1)
    below = torch.tensor(list(GROUNDS.values()))[colours[:, 1]][..., None, None]
    return (below + shapes * (above - below)) / 127.5 - 1


def recall(cosines: NDArray[np.float64]) -> float:
    """Share of pictures whose first caption beats all others: cosines (N, K)."""
    return float((cosines[:, 0] > cosines[:, 1:].max(1)).mean())
