"""Trains the drafter on the cloud's guided law: Inter-DRO [paper] with optional terms of ours.

Flows in: `LawCache`s. Flows out: a `Drafter`, checkpoints, a curve for TensorBoard. Knows nothing of how the sequences
came about.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ciar.training.drafter import Drafter, DrafterConfig, PairShape, interfuse, scores
from ciar.training.laws import LawCache
from ciar.training.muon import Muon
from ciar.training.run_state import Budget, Several, TorchState, TrainingRun


class LossWeights(BaseModel):
    """Weights of the terms; zero leaves a term out. p_c: cloud, m: centre, lo/up: InterFuse bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    align: float = Field(default=1.0, ge=0)
    """λ_β, KL(p_c ‖ m) [paper]."""
    anchor_l1: float = Field(default=0.5, ge=0)
    """λ_v, ‖m − p_c‖₁ [paper], of the laws at the sampling temperature [ours]."""
    anchor_ce: float = Field(default=0.0, ge=0)
    """λ_p, CE(p_c, m) [paper]; the same gradient as `align` on the centre."""
    bounds: float = Field(default=0.0, ge=0)
    """anchor(up) + anchor(lo), with the λ above [paper]; applied to the radius."""
    dro: float = Field(default=0.0, ge=0)
    """Σ wₙ CE(p_c, lo), wₙ ∝ exp(α·CEₙ) over the batch [paper]."""
    dro_alpha: float = Field(default=0.5, ge=0)
    softmax_bounds: bool = False
    """Bounds for the terms above as softmax(c ± r), the other reading of [paper], in place of InterFuse."""
    laplace: float = Field(default=0.0, ge=0)
    """The radius as the Laplace scale of the log-odds error, weighted by (p_c + m)/2 [ours]."""
    interval_score: float = Field(default=0.0, ge=0)
    """Winkler's score at 80 % of p_c under [lo, up], weighted by (p_c + m)/2 [ours]."""
    width: float = Field(default=0.0, ge=0)
    """(Ω/4 − TV(p_c, m))²: the width as an estimate of the mean distance at the sampling temperature [ours]."""
    score: float = Field(default=0.0, ge=0)
    """(√(U·√V)/3.4 − TV(p_c, m))²: the same of the paper's score U, of second degree in the widths [ours]."""


class DrafterTrainingConfig(Budget):
    """Optimisation of the drafter, over a budget."""

    num_steps: int | None = Field(default=3600, gt=0)
    mixed_from: float = Field(default=0.6, gt=0, le=1)
    """After this share of the budget, sequences that cloud and drafter wrote in turns are written and added."""
    batch_size: int = Field(default=16, gt=0)
    learning_rate: float = Field(default=3e-3, gt=0)
    matrix_learning_rate: float = Field(default=5e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=40, gt=0)
    weights: LossWeights = LossWeights()
    seed: int = 0


def inter_dro(
    center: Tensor, radius: Tensor, log_p: Tensor, weights: LossWeights, temperature: float = 1.0
) -> tuple[Tensor, dict[str, float]]:
    """The loss of drafts against the cloud's log-probabilities, all (B, T, V), and its terms.

    The bounds see the centre detached: a radius must not buy its comfort with a worse centre. temperature: of sampling;
    distances are measured between the laws that tokens are drawn from.
    """
    log_m = torch.log_softmax(center, dim=-1)
    p, m = log_p.exp(), log_m.exp()
    tv = total_variation(center, log_p, temperature)  # (B, T)
    terms: dict[str, Tensor] = {}
    if weights.align:
        terms["align"] = weights.align * (p * (log_p - log_m)).sum(-1).mean()
    if weights.anchor_l1:
        terms["l1"] = weights.anchor_l1 * 2 * tv.mean()
    if weights.anchor_ce:
        terms["ce"] = weights.anchor_ce * -(p * log_m).sum(-1).mean()
    terms |= _bound_terms(center.detach(), radius, p, m.detach(), tv.detach(), weights)
    if weights.laplace:
        error = (_log_odds(log_m.detach()) - _log_odds(log_p)).abs().clamp(max=12.0)
        scale = radius + 1e-3
        share = 0.5 * (p + m.detach())
        terms["laplace"] = weights.laplace * (share * (error / scale + scale.log())).sum(-1).mean()
    total = torch.stack(list(terms.values())).sum()
    return total, {name: term.item() for name, term in terms.items()} | {"tv": tv.mean().item()}


def total_variation(center: Tensor, log_p: Tensor, temperature: float) -> Tensor:
    """TV between the laws that tokens are drawn from, of logits (…, V): (…)."""
    return 0.5 * (torch.softmax(center / temperature, -1) - torch.softmax(log_p / temperature, -1)).abs().sum(-1)


def _bound_terms(
    center: Tensor, radius: Tensor, p: Tensor, m: Tensor, tv: Tensor, weights: LossWeights
) -> dict[str, Tensor]:
    """The terms that look at the probability interval."""
    terms: dict[str, Tensor] = {}
    if not (weights.bounds or weights.dro or weights.interval_score or weights.width or weights.score):
        return terms
    lower, upper = interfuse(center, radius)
    if weights.bounds or weights.dro:
        low, high = lower, upper
        if weights.softmax_bounds:
            low, high = torch.softmax(center - radius, -1), torch.softmax(center + radius, -1)
        ce_lower = -(p * low.clamp(min=1e-9).log()).sum(-1)  # (B, T)
        if weights.bounds:
            l1 = (high - p).abs().sum(-1).mean() + (low - p).abs().sum(-1).mean()
            ce = ce_lower.mean() - (p * high.clamp(min=1e-9).log()).sum(-1).mean()
            terms["bounds"] = weights.bounds * (weights.anchor_l1 * l1 + weights.anchor_ce * ce)
        if weights.dro:
            hardness = torch.softmax(weights.dro_alpha * ce_lower.detach().flatten(), 0)
            terms["dro"] = weights.dro * (hardness * ce_lower.flatten()).sum()
    if weights.interval_score:
        outside = (lower - p).clamp(min=0) + (p - upper).clamp(min=0)
        winkler = (upper - lower) + 10.0 * outside  # 2/α with α = 0.2
        terms["interval"] = weights.interval_score * (0.5 * (p + m) * winkler).sum(-1).mean()
    if weights.width or weights.score:
        ambiguity, _, uncertainty = scores(lower, upper)
        if weights.width:
            terms["width"] = weights.width * (ambiguity / 4 - tv).square().mean()
        if weights.score:
            reach = (uncertainty * p.shape[-1] ** 0.5 + 1e-8).sqrt() / 3.4
            terms["score"] = weights.score * (reach - tv).square().mean()
    return terms


def _log_odds(log_p: Tensor) -> Tensor:
    return log_p - torch.log((1.0 - log_p.exp()).clamp(min=1e-7))


class DrafterTrainer:
    """One resumable run in a folder, over a cache that may grow on the way."""

    def __init__(
        self, config: DrafterTrainingConfig, shape: DrafterConfig, pair: PairShape, temperature: float, folder: Path
    ) -> None:
        """temperature: at which the pair samples. Raises ValueError if the folder's run had another configuration."""
        torch.manual_seed(config.seed)
        self.config, self.drafter, self.temperature = config, Drafter(shape, pair), temperature
        self.generator = torch.Generator().manual_seed(config.seed)
        matrices = [p for n, p in self.drafter.named_parameters() if _is_inner_matrix(n)]
        named = self.drafter.named_parameters()
        rest = [p for n, p in named if not _is_inner_matrix(n) and not n.startswith("feature_head")]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=config.matrix_learning_rate, weight_decay=config.weight_decay),
            torch.optim.AdamW(rest, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.95)),
        ]
        self.state = TrainingRun(
            folder,
            "drafter",
            config,
            {
                "config": shape.model_dump(mode="json"),
                "pair": pair.model_dump(),
                "training": config.fixed(),
                "temperature": temperature,
            },
            {
                "model": self.drafter,
                "optimizers": Several(self.optimizers),
                "generator": TorchState(self.generator),
            },
        )
        self.state.resume()

    @property
    def wants_mixed(self) -> bool:
        """Whether the next step is one of those that also see mixed sequences."""
        return self.state.progress >= self.config.mixed_from

    def run(self, cache: LawCache, until: float) -> None:
        """Train until that share of the budget is spent; the rate falls as a cosine over all of it."""
        self.drafter.train()
        self.state.run(lambda: self._step(cache), until=until)
        self.drafter.eval()

    def _step(self, cache: LawCache) -> dict[str, float]:
        config = self.config
        warm = min(1.0, (self.state.step + 1) / config.warmup_steps)
        factor = warm * 0.5 * (1 + math.cos(math.pi * self.state.progress))
        rates = (config.matrix_learning_rate, config.learning_rate)
        for optimizer, rate in zip(self.optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        rows = torch.randint(len(cache), (config.batch_size,), generator=self.generator)
        condition, tokens, log_p = cache.batch(rows)
        draft = self.drafter(condition, tokens)
        loss, terms = inter_dro(draft.center, draft.radius, log_p, config.weights, self.temperature)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.drafter.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return terms


def _is_inner_matrix(name: str) -> bool:
    """Whether a parameter is a matrix of the layer itself, which Muon trains."""
    return name.split(".")[-2] in ("wqkv", "wo", "w1", "w2", "w3")


def save_drafter(drafter: Drafter, path: Path) -> None:
    """Write shapes and weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = {"config": drafter.config.model_dump(mode="json"), "pair": drafter.pair.model_dump()}
    torch.save(shapes | {"state": drafter.state_dict()}, path)


def load_drafter(path: Path) -> Drafter:
    """Read what `save_drafter` wrote. Raises FileNotFoundError that names the command to run."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run the `drafter` command first")
    held = torch.load(path, weights_only=True)
    drafter = Drafter(DrafterConfig(**held["config"]), PairShape(**held["pair"]))
    drafter.load_state_dict(held["state"])
    return drafter.eval()
