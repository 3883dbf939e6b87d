"""Trains the drafter on the cloud's guided law: Inter-DRO [paper] with optional terms of ours.

Flows in: `LawCache`s. Flows out: a `Drafter`. Knows nothing of how the sequences came about.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from tqdm import tqdm

from training.distillation import LawCache
from training.drafter import Drafter, DrafterConfig, PairShape, interfuse
from training.muon import Muon


class LossWeights(BaseModel):
    """Weights of the terms; zero leaves a term out. p_c: cloud, m: centre, lo/up: InterFuse bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    align: float = Field(default=1.0, ge=0)
    """λ_β, KL(p_c ‖ m) [paper]."""
    anchor_l1: float = Field(default=0.5, ge=0)
    """λ_v, ‖m − p_c‖₁ [paper]."""
    anchor_ce: float = Field(default=0.0, ge=0)
    """λ_p, CE(p_c, m) [paper]; the same gradient as `align` on the centre."""
    bounds: float = Field(default=0.0, ge=0)
    """anchor(up) + anchor(lo), with the λ above [paper]; applied to the radius."""
    dro: float = Field(default=0.0, ge=0)
    """Σ wₙ CE(p_c, lo), wₙ ∝ exp(α·CEₙ) over the batch [paper]."""
    dro_alpha: float = Field(default=0.5, ge=0)
    laplace: float = Field(default=0.1, ge=0)
    """The radius as the Laplace scale of the log-odds error, weighted by (p_c + m)/2 [ours]."""
    width: float = Field(default=0.0, ge=0)
    """|Ω/4 − TV(p_c, m)|: the width as an estimate of the distance [ours]."""


class DrafterTrainingConfig(BaseModel):
    """Optimisation of the drafter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float = Field(default=540, gt=0)
    batch_size: int = Field(default=16, gt=0)
    learning_rate: float = Field(default=3e-3, gt=0)
    matrix_learning_rate: float = Field(default=5e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    num_data: int = Field(default=2000, ge=0)
    """Sequences of the data set, read by the cloud."""
    num_written: int = Field(default=800, ge=0)
    """Sequences written by the cloud."""
    num_mixed: int = Field(default=400, ge=0)
    """Sequences written by cloud and drafter in turns, after half of the time."""
    mixed_local_share: float = Field(default=0.7, ge=0, le=1)
    num_held_out: int = Field(default=144, gt=0)
    """Sequences for the figures."""
    radius_seconds: float = Field(default=40, gt=0)
    """Time of each variant of the `radius` command."""
    weights: LossWeights = LossWeights()
    seed: int = 0


def inter_dro(center: Tensor, radius: Tensor, log_p: Tensor, weights: LossWeights) -> tuple[Tensor, dict[str, float]]:
    """The loss of drafts against the cloud's log-probabilities, all (B, T, V), and its terms.

    The bounds see the centre detached: a radius must not buy its comfort with a worse centre.
    """
    log_m = torch.log_softmax(center, dim=-1)
    p, m = log_p.exp(), log_m.exp()
    tv = 0.5 * (p - m).abs().sum(-1)  # (B, T)
    terms: dict[str, Tensor] = {}
    cross_entropy = -(p * log_m).sum(-1)
    if weights.align:
        terms["align"] = weights.align * (p * (log_p - log_m)).sum(-1).mean()
    if weights.anchor_l1:
        terms["l1"] = weights.anchor_l1 * 2 * tv.mean()
    if weights.anchor_ce:
        terms["ce"] = weights.anchor_ce * cross_entropy.mean()
    if weights.bounds or weights.dro or weights.width:
        lower, upper = interfuse(center.detach(), radius)
        ce_lower = -(p * lower.clamp(min=1e-9).log()).sum(-1)  # (B, T)
        if weights.bounds:
            l1 = (upper - p).abs().sum(-1).mean() + (lower - p).abs().sum(-1).mean()
            ce = ce_lower.mean() - (p * upper.clamp(min=1e-9).log()).sum(-1).mean()
            terms["bounds"] = weights.bounds * (weights.anchor_l1 * l1 + weights.anchor_ce * ce)
        if weights.dro:
            hardness = torch.softmax(weights.dro_alpha * ce_lower.detach().flatten(), 0)
            terms["dro"] = weights.dro * (hardness * ce_lower.flatten()).sum()
        if weights.width:
            terms["width"] = weights.width * ((upper - lower).sum(-1) / 4 - tv.detach()).abs().mean()
    if weights.laplace:
        error = (_log_odds(log_m.detach()) - _log_odds(log_p)).abs().clamp(max=12.0)
        share = 0.5 * (p + m.detach())
        scale = radius + 1e-3
        terms["laplace"] = weights.laplace * (share * (error / scale + scale.log())).sum(-1).mean()
    total = torch.stack(list(terms.values())).sum()
    return total, {name: term.item() for name, term in terms.items()} | {"tv": tv.mean().item()}


def _log_odds(log_p: Tensor) -> Tensor:
    return log_p - torch.log((1.0 - log_p.exp()).clamp(min=1e-7))


class DrafterTrainer:
    """Optimises a drafter over caches that may change on the way."""

    def __init__(self, config: DrafterTrainingConfig, shape: DrafterConfig, pair: PairShape) -> None:
        torch.manual_seed(config.seed)
        self.config, self.drafter = config, Drafter(shape, pair)
        self.generator = torch.Generator().manual_seed(config.seed)
        inner = [self.drafter.wqkv, self.drafter.wo, self.drafter.w1, self.drafter.w2, self.drafter.w3]
        matrices = [layer.weight for layer in inner]
        chosen = {id(p) for p in matrices}
        named = self.drafter.named_parameters()
        rest = [p for n, p in named if id(p) not in chosen and not n.startswith("feature_head")]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=config.matrix_learning_rate, weight_decay=config.weight_decay),
            torch.optim.AdamW(rest, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.95)),
        ]
        self.step, self.elapsed = 0, 0.0

    def run(self, cache: LawCache, until: float) -> None:
        """Train until `until` seconds of the budget are spent; the rate falls as a cosine over the whole budget."""
        self.drafter.train()
        base = (self.config.matrix_learning_rate, self.config.learning_rate)
        bar, last = tqdm(total=round(until - self.elapsed), desc="drafter", unit="s", mininterval=5), time.monotonic()
        begun, sums = self.elapsed, {}
        while self.elapsed < until:
            progress = min(1.0, self.elapsed / self.config.seconds)
            factor = min(1.0, (self.step + 1) / 40) * 0.5 * (1 + math.cos(math.pi * progress))
            for optimizer, rate in zip(self.optimizers, base, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate * factor
            rows = torch.randint(len(cache), (self.config.batch_size,), generator=self.generator)
            condition, tokens, log_p = cache.batch(rows)
            draft = self.drafter(condition, tokens)
            loss, terms = inter_dro(draft.center, draft.radius, log_p, self.config.weights)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.drafter.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            self.step += 1
            now = time.monotonic()
            self.elapsed, last = self.elapsed + now - last, now
            sums = {name: 0.95 * sums.get(name, value) + 0.05 * value for name, value in terms.items()}
            bar.set_postfix({name: f"{value:.3f}" for name, value in sums.items()} | {"step": self.step})
            bar.update(round(self.elapsed - begun) - bar.n)
        bar.close()
        self.drafter.eval()


def save_drafter(drafter: Drafter, path: Path) -> None:
    """Write shapes and weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = {"config": drafter.config.model_dump(), "pair": drafter.pair.model_dump()}
    torch.save(shapes | {"state": drafter.state_dict()}, path)


def load_drafter(path: Path) -> Drafter:
    """Read what `save_drafter` wrote. Raises FileNotFoundError that names the command to run."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run the `drafter` command first")
    held = torch.load(path, weights_only=True)
    drafter = Drafter(DrafterConfig(**held["config"]), PairShape(**held["pair"]))
    drafter.load_state_dict(held["state"])
    return drafter.eval()
