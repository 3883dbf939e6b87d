"""Trains the interval feature: φ in the drafter and its projection in the cloud, everything else frozen.

Flows in: a trained pair and sequences that the cloud wrote. Flows out: the two small matrices, and the held-out loss
with and without them.

The cloud predicts the next token of a sequence whose locally accepted tokens carry f = Wφ(hidden, lower, upper). What
it reads there is either the sequence's own token or, as on a device, the drafter's draw in its place, while it is asked
for the sequence's own tokens. W starts at zero, so that the feature can only help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ciar.cloud_server.transformer import Transformer
from ciar.training.drafter import Draft, Drafter, scores
from ciar.training.laws import LawCache
from ciar.training.run_state import Budget, Several, TorchState, TrainingRun
from ciar.training.sampling import gumbel


class FeatureTrainingConfig(Budget):
    """Optimisation of φ and its projection, over a budget."""

    num_steps: int | None = Field(default=150, gt=0)
    batch_size: int = Field(default=8, gt=0)
    learning_rate: float = Field(default=3e-3, gt=0)
    local_share: float = Field(default=0.8, gt=0, le=1)
    """Share of the tokens, the least uncertain by U, that are taken as accepted locally and carry a feature."""
    num_held_out: int = Field(default=128, gt=0)
    seed: int = 0


@dataclass(frozen=True)
class Variant:
    """What φ is trained on."""

    reads: Literal["own", "drafted"]
    """Tokens at the locally accepted places: the sequence's own, or the drafter's draws."""
    rank: int
    """Components of the feature that are used, at most r."""

    @property
    def name(self) -> str:
        return f"{self.reads} tokens, rank {self.rank}"


@dataclass(frozen=True)
class FeatureScore:
    """Held-out loss in nats a token: without features and with them."""

    without: float
    with_features: float

    @property
    def gain(self) -> float:
        return self.without - self.with_features


@dataclass(frozen=True)
class Marked:
    """A batch as the cloud reads it."""

    condition: Tensor  # int64 (B, C)
    read: Tensor  # int64 (B, T) what the cloud reads
    target: Tensor  # int64 (B, T) what it should have written
    local: Tensor  # bool (B, T) accepted locally
    draft: Draft  # the drafter's view of `read`


class FeatureTrainer:
    """Optimises the two matrices for one variant."""

    def __init__(
        self,
        model: Transformer,
        drafter: Drafter,
        variant: Variant,
        config: FeatureTrainingConfig,
        prefix: int,
        temperature: float,
        folder: Path,
    ) -> None:
        """Raises ValueError if the cloud model has no place for a feature of that rank."""
        if model.feature_projection is None or variant.rank > model.config.feature_dim:
            raise ValueError(f"cloud.feature_dim: {model.config.feature_dim} has no room for rank {variant.rank}")
        self.model, self.drafter, self.variant, self.config = model, drafter, variant, config
        self.prefix, self.temperature = prefix, temperature
        for p in (*model.parameters(), *drafter.parameters()):
            p.requires_grad_(False)
        self.projection, self.head = model.feature_projection, drafter.feature_head
        self.generator = torch.Generator().manual_seed(config.seed)
        with torch.no_grad():
            self.projection.weight.zero_()
            self.head.weight.normal_(std=0.05, generator=self.generator)
            self.head.weight[variant.rank :] = 0
        self.trained = [self.projection.weight, self.head.weight]
        for p in self.trained:
            p.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.trained, lr=config.learning_rate, weight_decay=0.0)
        self.state = TrainingRun(
            folder,
            f"features-{variant.reads}-{variant.rank}",
            config,
            {"training": config.fixed(), "prefix": prefix, "temperature": temperature},
            {
                "matrices": Several([self.projection, self.head]),
                "optimizer": self.optimizer,
                "generator": TorchState(self.generator),
            },
        )
        self.state.resume()

    @torch.no_grad()
    def mark(self, condition: Tensor, tokens: Tensor, generator: torch.Generator) -> Marked:
        """Accept the least uncertain tokens of (B, T) locally; where the variant reads drafts, put them in place."""
        draft = self.drafter(condition, tokens)
        uncertainty = scores(*draft.interval())[2]  # (B, T)
        local = uncertainty <= uncertainty.quantile(self.config.local_share, dim=1, keepdim=True)
        local[:, : self.prefix] = False
        read = tokens
        if self.variant.reads == "drafted":
            drawn = (draft.center / self.temperature + gumbel(draft.center.shape, generator)).argmax(-1)
            read = torch.where(local, drawn, tokens)
            draft = self.drafter(condition, read)
        return Marked(condition, read, tokens, local, draft)

    def features(self, marked: Marked) -> Tensor:
        """f of the locally accepted tokens, zeros elsewhere: (B, T, r). Gradients reach φ alone."""
        lower, upper = marked.draft.interval()
        inputs = torch.cat([marked.draft.hidden, lower, upper], dim=-1)  # (B, T, d + 2V)
        return self.head(inputs) * marked.local[..., None]

    def loss(self, marked: Marked, features: Tensor | None) -> Tensor:
        """Cross-entropy of the sequence's own tokens, nats a token."""
        sent = None if features is None else features[:, :-1]
        logits = self.model(marked.condition, marked.read[:, :-1], sent)  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1), marked.target.flatten())

    @torch.no_grad()
    def evaluate(self, cache: LawCache) -> FeatureScore:
        """Held-out loss, on the same drafts with and without features."""
        generator = torch.Generator().manual_seed(2)
        without = with_features = 0.0
        rows = torch.arange(min(len(cache), self.config.num_held_out))
        for part in rows.split(16):
            condition, tokens, _ = cache.batch(part)
            marked = self.mark(condition, tokens, generator)
            without += self.loss(marked, None).item() * len(part)
            with_features += self.loss(marked, self.features(marked)).item() * len(part)
        return FeatureScore(without / len(rows), with_features / len(rows))

    def run(self, cache: LawCache) -> None:
        """Train for the budget."""
        self.state.run(lambda: self._step(cache))

    def _step(self, cache: LawCache) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * (1 - self.state.progress)
        rows = torch.randint(len(cache), (self.config.batch_size,), generator=self.generator)
        condition, tokens, _ = cache.batch(rows)
        marked = self.mark(condition, tokens, self.generator)
        loss = self.loss(marked, self.features(marked))
        self.optimizer.zero_grad()
        loss.backward()
        self.head.weight.grad[self.variant.rank :] = 0  # components that are not used stay zero
        self.optimizer.step()
        return {"loss/features": loss.item()}
