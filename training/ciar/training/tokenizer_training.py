"""Trains a tokenizer on images, or its decoder alone.

Flows in: uint8 images, coverage (N, H, W) or RGB (N, 3, H, W). Flows out: a tokenizer and its held-out figures.
Knows nothing of captions or of what the images show.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ciar.training.picture_tokenizer import PictureTokenizer
from ciar.training.run_state import Budget, Precision, TorchState, TrainingRun, precision
from ciar.training.tokenizer import Tokenizer, TokenizerConfig, VQTokenizer

KINDS: dict[str, type[Tokenizer] | type[PictureTokenizer]] = {k.kind: k for k in (Tokenizer, PictureTokenizer)}
NUM_CHECKED = 256
"""Held-out pictures that are looked at while training."""
SETTLED = 0.85
"""Share of the budget after which the codebook no longer moves, so that the decoder settles on it."""


class TokenizerTrainingConfig(Budget):
    """Optimisation of the tokenizer; the learning rate reaches zero at the end of the budget."""

    seconds: float | None = Field(default=300, gt=0)
    batch_size: int = Field(default=32, gt=0)
    learning_rate: float = Field(default=2e-3, gt=0)
    commitment: float = Field(default=0.25, ge=0)
    gradient_weight: float = Field(default=0.5, ge=0)
    """Weight of the L1 distance of image gradients."""
    detail_weight: float = Field(default=0.0, ge=0)
    """How much more a pixel counts where much is going on around it, and in dark pictures (`detail_weights`); 0: all
    count alike."""
    precision: Precision = "float32"
    checkpoint_seconds: float = Field(default=240, gt=0)
    evaluate_seconds: float = Field(default=600, gt=0)
    seed: int = 0


@dataclass(frozen=True)
class TokenizerScore:
    """Held-out quality. PSNR in dB over the channels; perplexity and use count over the codebook."""

    psnr_db: float
    perplexity: float
    codes_used: int
    ground_share: float
    """Share of the cells without a code."""


@torch.no_grad()
def detail_weights(images: Tensor, strength: float) -> Tensor | None:
    """What a pixel counts in the loss, (B, 1, H, W) for images (B, 3, H, W): 1 … 1 + 4·strength by the edges around it,
    over the picture's brightness, so that small and dark things are not lost; None for strength 0."""
    if not strength:
        return None
    edges = sum(
        F.pad(images.diff(dim=d).abs().mean(1, keepdim=True), pad) for d, pad in ((-1, (0, 1)), (-2, (0, 0, 0, 1)))
    )
    brightness = 0.25 + images.mean((1, 2, 3), keepdim=True)
    busy = (F.avg_pool2d(edges, 9, 1, 4) / brightness * 30).clamp(max=4)
    return (1 + strength * busy) / (1.6 * brightness)


def reconstruction_loss(made: Tensor, images: Tensor, config: TokenizerTrainingConfig) -> Tensor:
    """L1 + gradient + MSE between images (…, H, W)."""
    weights = detail_weights(images, config.detail_weight)
    apart = made - images

    def mean(values: Tensor, height: int, width: int) -> Tensor:
        return values.mean() if weights is None else (values * weights[..., -height:, -width:]).mean()

    height, width = images.shape[-2:]
    loss = mean(apart.abs() + apart.square(), height, width)
    rows, columns = apart.diff(dim=-2).abs(), apart.diff(dim=-1).abs()
    return loss + config.gradient_weight * (mean(rows, height - 1, width) + mean(columns, height, width - 1))


def unit(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images as float32 in [0, 1] on a device."""
    return images.to(device).float() / 255


@torch.no_grad()
def evaluate(tokenizer: VQTokenizer, images: Tensor) -> TokenizerScore:
    """Reconstruct images from their tokens."""
    device = tokenizer.quantizer.codes.device
    errors, parts = [], []
    for part in images.split(128):
        batch = unit(part, device)  # (B, …, H, W)
        indices = tokenizer.indices(batch)  # (B, T)
        errors.append((tokenizer.decode(indices).clamp(0, 1) - batch).square().flatten(1).mean(1).cpu())
        parts.append(indices.cpu())
    indices = torch.cat(parts)
    used = torch.bincount(indices[indices >= 0], minlength=len(tokenizer.quantizer.codes)).float()
    law = used / used.sum()
    perplexity = torch.exp(-(law * law.clamp(min=1e-12).log()).sum()).item()
    psnr = -10 * torch.cat(errors).clamp(min=1e-6).log10().mean().item()
    return TokenizerScore(psnr, perplexity, int((used > 0).sum()), (indices < 0).float().mean().item())


def all_indices(tokenizer: VQTokenizer, images: Tensor, device: torch.device) -> Tensor:
    """Codebook indices of uint8 images, on the CPU: (N, T)."""
    return torch.cat([tokenizer.indices(unit(part, device)).cpu() for part in images.split(256)])


def cached_indices(tokenizer: VQTokenizer, images: Tensor, device: torch.device, path: Path) -> Tensor:
    """`all_indices`, read from a file if this encoder and codebook wrote it for as many images, else computed and kept.

    The decoder does not matter: it may be trained further.
    """
    kept = [t.numpy().tobytes() for n, t in sorted(tokenizer.state_dict().items()) if not n.startswith("decoder")]
    checksum = zlib.crc32(b"".join(kept))
    if path.is_file():
        held = torch.load(path, weights_only=True)
        if held["checksum"] == checksum and len(held["indices"]) == len(images):
            return held["indices"].long()
    indices = all_indices(tokenizer.to(device), images, device)
    tokenizer.cpu()
    torch.save({"checksum": checksum, "indices": indices.to(torch.int32)}, path)
    return indices


class TokenizerTrainer:
    """One resumable run that trains all of a tokenizer; held-out figures come from a few pictures on the way.

    Raises ValueError for a weight on detail where images have no colour.
    """

    def __init__(
        self,
        kind: str,
        shape: TokenizerConfig,
        images: Tensor,
        held_out: Tensor,
        config: TokenizerTrainingConfig,
        folder: Path,
        device: torch.device,
    ) -> None:
        if config.detail_weight and images.ndim != 4:
            raise ValueError("tokenizer_training.detail_weight: for pictures only, icons are coverage; set it to 0")
        torch.manual_seed(config.seed)
        self.config, self.images, self.device = config, images, device
        self.held_out = held_out[:: max(1, len(held_out) // NUM_CHECKED)][:NUM_CHECKED]
        self.tokenizer = KINDS[kind](shape).to(device)
        self.optimizer = _optimizer(self.tokenizer.parameters(), config)
        self.generator = torch.Generator().manual_seed(config.seed)
        fixed = config.fixed("checkpoint_seconds", "evaluate_seconds")
        identity = {"kind": kind, "shape": shape.model_dump(), "training": fixed, "num_images": len(images)}
        parts = {"model": self.tokenizer, "optimizer": self.optimizer, "generator": TorchState(self.generator)}
        self.state = TrainingRun(folder, "tokenizer", config, identity, parts, config.checkpoint_seconds)

    def run(self, until: float = 1.0) -> VQTokenizer:
        """Train on, until that share of the budget is spent."""
        self.tokenizer.train()
        self.state.run(
            self.train_step, until=until, evaluate=self.figures, evaluate_seconds=self.config.evaluate_seconds
        )
        return self.tokenizer.eval()

    def figures(self) -> Mapping[str, float]:
        """Held-out figures so far."""
        score = evaluate(self.tokenizer, self.held_out)
        return {"held_out/psnr_db": score.psnr_db, "held_out/perplexity": score.perplexity}

    def train_step(self) -> Mapping[str, float]:
        """One batch; returns its losses."""
        progress = self.state.progress
        warm = min(1.0, (self.state.step + 1) / 50)
        _set_rate(self.optimizer, self.config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * progress)))
        rows = torch.randint(len(self.images), (self.config.batch_size,), generator=self.generator)
        batch = unit(self.images[rows], self.device)  # (B, …, H, W)
        with precision(self.config.precision, self.device):
            made = self.tokenizer.reconstruct(batch)
        loss = reconstruction_loss(made.images, batch, self.config)
        if len(made.vectors):  # a batch of blank icons has no code to commit to
            apart = made.vectors - self.tokenizer.quantizer.codes[made.index]
            loss = loss + self.config.commitment * apart.square().sum(-1).mean()
        _descend(self.optimizer, loss)
        if progress < SETTLED:
            self.tokenizer.quantizer.update(made.vectors.detach(), made.index, self.generator)
        return {"loss/train": loss.item()}


class DecoderTrainer:
    """One resumable run that trains the decoder further; encoder and codebook do not move, so tokens stay valid."""

    def __init__(
        self,
        tokenizer: VQTokenizer,
        images: Tensor,
        config: TokenizerTrainingConfig,
        folder: Path,
        device: torch.device,
    ) -> None:
        self.config, self.images, self.device = config, images, device
        self.tokenizer = tokenizer.to(device)
        self.indices = all_indices(tokenizer, images, device)  # (N, T)
        self.optimizer = _optimizer(tokenizer.decoder_parameters(), config)
        self.generator = torch.Generator().manual_seed(config.seed + 1)
        identity = {
            "kind": tokenizer.kind,
            "shape": tokenizer.config.model_dump(),
            "training": config.fixed(),
            "num_images": len(images),
            "codebook": zlib.crc32(tokenizer.quantizer.codes.cpu().numpy().tobytes()),
        }
        parts = {"model": tokenizer, "optimizer": self.optimizer, "generator": TorchState(self.generator)}
        self.state = TrainingRun(folder, "refine", config, identity, parts)

    def run(self, until: float = 1.0) -> VQTokenizer:
        """Train on, until that share of the budget is spent."""
        self.state.run(self.train_step, until=until)
        return self.tokenizer

    def train_step(self) -> Mapping[str, float]:
        """One batch; returns its loss."""
        _set_rate(self.optimizer, self.config.learning_rate * min(1.0, 2 * (1 - self.state.progress)) * 0.5)
        rows = torch.randint(len(self.images), (self.config.batch_size,), generator=self.generator)
        batch = unit(self.images[rows], self.device)
        with precision(self.config.precision, self.device):
            made = self.tokenizer.decode(self.indices[rows].to(self.device)).float()
        loss = reconstruction_loss(made, batch, self.config)
        _descend(self.optimizer, loss)
        return {"loss/train": loss.item()}


def _optimizer(parameters, config: TokenizerTrainingConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=1e-4, betas=(0.9, 0.95))


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def save_tokenizer(tokenizer: VQTokenizer, path: Path) -> None:
    """Write kind, configuration and weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = {"kind": tokenizer.kind, "config": tokenizer.config.model_dump(), "state": tokenizer.state_dict()}
    torch.save(held, path)


def load_tokenizer(path: Path) -> VQTokenizer:
    """Read what `save_tokenizer` wrote. Raises FileNotFoundError that names the command to run."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run the `tokenizer` command first")
    held = torch.load(path, weights_only=True, map_location="cpu")
    tokenizer = KINDS[held.get("kind", Tokenizer.kind)](TokenizerConfig(**held["config"]))
    tokenizer.load_state_dict(held["state"])
    return tokenizer.eval()
