"""Trains the tokenizer on coverage masks.

Flows in: a data set. Flows out: a `Tokenizer` and its held-out figures. Knows nothing of captions or colours.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from tqdm import tqdm

from training.tokenizer import Tokenizer, TokenizerConfig


class TokenizerTrainingConfig(BaseModel):
    """Optimisation of the tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float = Field(default=300, gt=0)
    """Wall-clock budget; the learning rate reaches zero at its end."""
    batch_size: int = Field(default=32, gt=0)
    learning_rate: float = Field(default=2e-3, gt=0)
    commitment: float = Field(default=0.25, ge=0)
    gradient_weight: float = Field(default=0.5, ge=0)
    """Weight of the L1 distance of image gradients."""
    seed: int = 0


@dataclass(frozen=True)
class TokenizerScore:
    """Held-out quality. PSNR in dB over coverage; perplexity and use count over shape tokens."""

    psnr_db: float
    perplexity: float
    codes_used: int
    ground_share: float


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:, 1:] - x[:, :-1], x[:, :, 1:] - x[:, :, :-1]


def reconstruction_loss(coverage: Tensor, masks: Tensor, gradient_weight: float) -> Tensor:
    """L1 + gradient + MSE between coverages (B, 64, 64)."""
    loss = F.l1_loss(coverage, masks) + F.mse_loss(coverage, masks)
    pairs = zip(_gradients(coverage), _gradients(masks), strict=True)
    return loss + gradient_weight * sum(F.l1_loss(a, b) for a, b in pairs)


@torch.no_grad()
def evaluate(tokenizer: Tokenizer, masks: Tensor) -> TokenizerScore:
    """Reconstruct masks (N, 64, 64) in [0, 1] from their tokens."""
    errors, shapes = [], []
    for batch in masks.split(128):
        tokens = tokenizer.shapes(batch)  # (B, T)
        ground = (tokens < 0).view(len(batch), tokenizer.config.grid, -1)
        codes = tokenizer.quantizer.codes[tokens.clamp(min=0)].view(*ground.shape, -1)
        coverage = torch.sigmoid(tokenizer.decode_codes(codes, ground))
        errors.append((coverage - batch).square().mean((1, 2)))
        shapes.append(tokens)
    tokens = torch.cat(shapes)
    used = torch.bincount(tokens[tokens >= 0], minlength=tokenizer.config.num_shapes).float()
    law = used / used.sum()
    perplexity = torch.exp(-(law * law.clamp(min=1e-12).log()).sum()).item()
    psnr = -10 * torch.cat(errors).clamp(min=1e-6).log10().mean().item()
    return TokenizerScore(psnr, perplexity, int((used > 0).sum()), (tokens < 0).float().mean().item())


def train_tokenizer(
    masks: Tensor, held_out: Tensor, shape: TokenizerConfig, config: TokenizerTrainingConfig
) -> tuple[Tokenizer, TokenizerScore]:
    """Train on masks (N, 64, 64) in [0, 1] for the configured time; the score is of `held_out`."""
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    tokenizer = Tokenizer(shape)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=config.learning_rate, weight_decay=1e-4, betas=(0.9, 0.95))
    start, step, progress = time.monotonic(), 0, 0.0
    bar = tqdm(total=round(config.seconds), desc="tokenizer", unit="s")
    while progress < 1.0:
        progress = (time.monotonic() - start) / config.seconds
        warm = min(1.0, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        batch = masks[torch.randint(len(masks), (config.batch_size,), generator=generator)]  # (B, 64, 64)
        z = tokenizer.encode(batch)  # (B, 16, 16, D)
        ground = tokenizer.ground_cells(batch)  # (B, 16, 16)
        inked = z[~ground]  # (N, D)
        index = tokenizer.quantizer.nearest(inked.detach())
        codes = torch.zeros_like(z)
        chosen = tokenizer.quantizer.codes[index]
        codes[~ground] = inked + (chosen - inked).detach()
        coverage = torch.sigmoid(tokenizer.decode_codes(codes, ground))
        loss = reconstruction_loss(coverage, batch, config.gradient_weight)
        loss = loss + config.commitment * (inked - chosen).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress < 0.85:  # the decoder settles on a codebook that no longer moves
            tokenizer.quantizer.update(inked.detach(), index, generator)
        step += 1
        if step % 20 == 0:
            bar.set_postfix(step=step, loss=f"{loss.item():.4f}")
            bar.update(round(time.monotonic() - start) - bar.n)
    bar.close()
    return tokenizer.eval(), evaluate(tokenizer, held_out)


def refine_tokenizer(tokenizer: Tokenizer, masks: Tensor, config: TokenizerTrainingConfig) -> None:
    """Train the decoder alone on masks (N, 64, 64) for the configured time; encoder and codebook do not move."""
    generator = torch.Generator().manual_seed(config.seed + 1)
    with torch.no_grad():
        shapes = torch.cat([tokenizer.shapes(part) for part in masks.split(256)])  # (N, T)
    trained = [tokenizer.ground_code, *tokenizer.decoder.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=1e-4, betas=(0.9, 0.95))
    start, bar = time.monotonic(), tqdm(total=round(config.seconds), desc="refine", unit="s")
    while (elapsed := time.monotonic() - start) < config.seconds:
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, 2 * (1 - elapsed / config.seconds)) * 0.5
        rows = torch.randint(len(masks), (config.batch_size,), generator=generator)
        grid = tokenizer.config.grid
        tokens = shapes[rows].view(-1, grid, grid)
        coverage = torch.sigmoid(tokenizer.decode_codes(tokenizer.quantizer.codes[tokens.clamp(min=0)], tokens < 0))
        loss = reconstruction_loss(coverage, masks[rows], config.gradient_weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")
        bar.update(round(elapsed) - bar.n)
    bar.close()


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write configuration and weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"config": tokenizer.config.model_dump(), "state": tokenizer.state_dict()}, path)


def load_tokenizer(path: Path) -> Tokenizer:
    """Read what `save_tokenizer` wrote. Raises FileNotFoundError that names the command to run."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run the `tokenizer` command first")
    held = torch.load(path, weights_only=True)
    tokenizer = Tokenizer(TokenizerConfig(**held["config"]))
    tokenizer.load_state_dict(held["state"])
    return tokenizer.eval()
