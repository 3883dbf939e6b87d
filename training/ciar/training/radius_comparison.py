"""Which loss should the radius learn from? One drafter, its trunk and centre frozen, one radius head per loss.

Flows in: a trained drafter and `LawCache`s. Flows out: a head per variant and how well U and Ω rank the tokens. The
frozen part is computed once, so that a head sees many positions in little time.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from tqdm import tqdm

from ciar.training.drafter import Drafter
from ciar.training.drafter_training import LossWeights, inter_dro
from ciar.training.laws import LawCache

_NOTHING = {"align": 0.0, "anchor_l1": 0.0, "anchor_ce": 0.0}
_PAPER = _NOTHING | {"anchor_l1": 1.0, "anchor_ce": 1.0, "bounds": 1.0}
INITIAL_RADIUS = 2.0
"""Where every head begins, for all tokens alike: about where a constant radius lets U rank best (ours)."""
VARIANTS: dict[str, LossWeights | None] = {
    "constant, nothing learnt [ours]": None,
    "anchors of the bounds, softmax [paper]": LossWeights(**_PAPER | {"softmax_bounds": True}),
    "anchors of the bounds, InterFuse [paper]": LossWeights(**_PAPER),
    "anchors + DRO, InterFuse [paper]": LossWeights(**_PAPER | {"dro": 1.0}),
    "Laplace scale [ours]": LossWeights(**_NOTHING | {"laplace": 1.0}),
    "interval score [ours]": LossWeights(**_NOTHING | {"interval_score": 1.0}),
    "Ω as the distance [ours]": LossWeights(**_NOTHING | {"width": 1.0}),
    "U as the distance [ours]": LossWeights(**_NOTHING | {"score": 1.0}),
    "Ω and U as the distance [ours]": LossWeights(**_NOTHING | {"width": 1.0, "score": 1.0}),
}
"""Terms of the centre carry no gradient here: where a variant names their λ, it is the bounds. None: not trained."""


class RadiusConfig(BaseModel):
    """Optimisation of the radius head."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_steps: int = Field(default=300, gt=0)
    """Of every variant."""
    num_sequences: int = Field(default=768, gt=0)
    batch_size: int = Field(default=2048, gt=0)
    """Positions, of many pictures."""
    learning_rate: float = Field(default=1e-3, gt=0)
    seed: int = 0


@dataclass(frozen=True)
class FrozenPositions:
    """What the frozen drafter and the cloud say of N positions, in float16."""

    hidden: Tensor  # (N, d)
    center: Tensor  # (N, V)
    law: Tensor  # (N, V)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.hidden[rows].float(), self.center[rows].float(), self.law[rows].float()


@torch.inference_mode()
def freeze(drafter: Drafter, cache: LawCache, prefix: int) -> FrozenPositions:
    """Read all sequences once; positions from `prefix` on."""
    parts: list[tuple[Tensor, ...]] = []
    for condition, tokens, log_p in tqdm(list(cache.batches(32)), desc="read", unit="batch"):
        draft = drafter(condition, tokens)
        parts.append(tuple(x[:, prefix:].flatten(0, 1).half() for x in (draft.hidden, draft.center, log_p)))
    return FrozenPositions(*(torch.cat(list(tensors)) for tensors in zip(*parts, strict=True)))


def train_radius(
    drafter: Drafter,
    positions: FrozenPositions,
    weights: LossWeights | None,
    config: RadiusConfig,
    temperature: float,
) -> Drafter:
    """A copy of the drafter whose radius head is trained afresh from a constant, all else unchanged."""
    drafter = copy.deepcopy(drafter)
    generator = torch.Generator().manual_seed(config.seed)
    head = drafter.radius_head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(math.log(math.expm1(INITIAL_RADIUS)))  # softplus of it is the radius
    if weights is None:
        return drafter
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=0.0)
    for step in tqdm(range(config.num_steps), desc="radius", unit="step", mininterval=5):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.num_steps))
        rows = torch.randint(len(positions.hidden), (config.batch_size,), generator=generator)
        hidden, center, log_p = positions.batch(rows)
        loss, _ = inter_dro(center, F.softplus(head(hidden)), log_p, weights, temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return drafter
