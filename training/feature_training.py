"""Trains the interval feature: φ in the drafter and its projection in the cloud, everything else frozen.

Flows in: a trained pair and painted data. Flows out: the two small matrices, and the held-out loss with and without.

The cloud predicts the next token of data whose locally accepted tokens carry f = Wφ(hidden, lower, upper); W starts at
zero, so that the feature can only help.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from tqdm import tqdm

from cloud_server.transformer import Transformer
from training.captions import Captioner
from training.cloud_training import TokenData
from training.drafter import Drafter, scores


class FeatureTrainingConfig(BaseModel):
    """Optimisation of φ and its projection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float = Field(default=150, gt=0)
    batch_size: int = Field(default=16, gt=0)
    learning_rate: float = Field(default=3e-3, gt=0)
    local_share: float = Field(default=0.8, gt=0, le=1)
    """Share of the tokens, the least uncertain by U, that carry a feature."""
    num_held_out: int = Field(default=192, gt=0)
    seed: int = 0


@dataclass(frozen=True)
class FeatureScore:
    """Held-out loss in nats a token: without features and with them."""

    without: float
    with_features: float


def interval_features(drafter: Drafter, condition: Tensor, tokens: Tensor, local_share: float, prefix: int) -> Tensor:
    """Features of the locally accepted tokens of (B, T), zeros elsewhere: (B, T, r). Gradients reach φ alone."""
    with torch.no_grad():
        draft = drafter(condition, tokens)
        lower, upper = draft.interval()
        uncertainty = scores(lower, upper)[2]  # (B, T)
        local = uncertainty <= uncertainty.quantile(local_share, dim=1, keepdim=True)
        local[:, :prefix] = False
        inputs = torch.cat([draft.hidden, lower, upper], dim=-1)  # (B, T, d + 2V)
    return drafter.feature_head(inputs) * local[..., None]


def _loss(model: Transformer, condition: Tensor, tokens: Tensor, features: Tensor | None) -> Tensor:
    sent = None if features is None else features[:, :-1]
    logits = model(condition, tokens[:, :-1], sent)  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


class FeatureTrainer:
    """Optimises the two matrices."""

    def __init__(
        self, model: Transformer, drafter: Drafter, captioner: Captioner, config: FeatureTrainingConfig, prefix: int
    ) -> None:
        if model.feature_projection is None:
            raise ValueError("the cloud model has no feature projection: set cloud.feature_dim")
        self.model, self.drafter, self.captioner, self.config, self.prefix = model, drafter, captioner, config, prefix
        for p in (*model.parameters(), *drafter.parameters()):
            p.requires_grad_(False)
        self.projection, self.head = model.feature_projection, drafter.feature_head
        torch.manual_seed(config.seed)
        with torch.no_grad():
            self.projection.weight.zero_()
            torch.nn.init.normal_(self.head.weight, std=0.05)
        self.trained = [self.projection.weight, self.head.weight]
        for p in self.trained:
            p.requires_grad_(True)

    @torch.no_grad()
    def evaluate(self, data: TokenData) -> FeatureScore:
        """Held-out loss of data with complete captions."""
        rng = np.random.default_rng(2)
        rows = rng.permutation(len(data.concept))[: self.config.num_held_out]
        tokens, labels = data.paint(rows, rng)
        captions = torch.from_numpy(self.captioner.full(labels))
        totals = np.zeros(2)
        for condition, part in zip(captions.split(16), tokens.split(16), strict=True):
            features = interval_features(self.drafter, condition, part, self.config.local_share, self.prefix)
            losses = [_loss(self.model, condition, part, f).item() for f in (None, features)]
            totals += np.array(losses) * len(part)
        return FeatureScore(*(totals / len(tokens)))

    def run(self, data: TokenData) -> None:
        """Train for the configured time."""
        rng, weights = np.random.default_rng(self.config.seed), data.row_weights()
        optimizer = torch.optim.AdamW(self.trained, lr=self.config.learning_rate, weight_decay=0.0)
        begun = time.monotonic()
        bar = tqdm(total=round(self.config.seconds), desc="features", unit="s", mininterval=5)
        while (elapsed := time.monotonic() - begun) < self.config.seconds:
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate * (1 - elapsed / self.config.seconds)
            rows = rng.choice(len(weights), self.config.batch_size, p=weights)
            tokens, labels = data.paint(rows, rng)
            condition = torch.from_numpy(self.captioner.draw(labels, rng))
            features = interval_features(self.drafter, condition, tokens, self.config.local_share, self.prefix)
            loss = _loss(self.model, condition, tokens, features)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.4f}")
            bar.update(round(elapsed) - bar.n)
        bar.close()
