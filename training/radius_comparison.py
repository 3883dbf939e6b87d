"""Which loss should the radius learn from? One drafter, its trunk and centre frozen, one radius head per loss.

Flows in: a trained drafter and `LawCache`s. Flows out: a head per variant and how well U and Ω rank the tokens.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tqdm import tqdm

from training.distillation import LawCache
from training.drafter import Drafter
from training.drafter_training import LossWeights, inter_dro
from training.metrics import PositionTable, tabulate

_NOTHING = {"align": 0.0, "anchor_l1": 0.0, "anchor_ce": 0.0, "laplace": 0.0}
VARIANTS: dict[str, LossWeights] = {
    "anchors of the bounds [paper]": LossWeights(**_NOTHING | {"anchor_l1": 1.0, "anchor_ce": 1.0, "bounds": 1.0}),
    "anchors + DRO [paper]": LossWeights(**_NOTHING | {"anchor_l1": 1.0, "anchor_ce": 1.0, "bounds": 1.0, "dro": 1.0}),
    "Laplace scale [ours]": LossWeights(**_NOTHING | {"laplace": 1.0}),
    "width = 4 TV [ours]": LossWeights(**_NOTHING | {"width": 1.0}),
    "Laplace + width [ours]": LossWeights(**_NOTHING | {"laplace": 0.2, "width": 1.0}),
}
"""Terms of the centre carry no gradient here; where a variant names their λ, it is for the bounds."""


@dataclass(frozen=True)
class RadiusResult:
    """One variant."""

    name: str
    drafter: Drafter
    table: PositionTable


def train_radius(drafter: Drafter, cache: LawCache, weights: LossWeights, seconds: float, seed: int) -> Drafter:
    """A copy of the drafter whose radius head is trained afresh on the cache, all else unchanged."""
    drafter = copy.deepcopy(drafter)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    head = drafter.radius_head
    with torch.no_grad():
        torch.nn.init.normal_(head.weight, std=0.01)
        head.bias.zero_()
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.0)
    begun, bar = time.monotonic(), tqdm(total=round(seconds), desc="radius", unit="s", mininterval=5)
    while (elapsed := time.monotonic() - begun) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - elapsed / seconds)
        condition, tokens, log_p = cache.batch(torch.randint(len(cache), (12,), generator=generator))
        with torch.no_grad():
            draft = drafter(condition, tokens)
        radius = F.softplus(head(draft.hidden))
        loss, _ = inter_dro(draft.center, radius, log_p, weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.update(round(elapsed) - bar.n)
    bar.close()
    return drafter


def compare(
    drafter: Drafter, cache: LawCache, held_out: LawCache, prefix: int, seconds: float, seed: int
) -> list[RadiusResult]:
    """Train every variant for the same time and tabulate it on held-out sequences."""
    results = []
    for name, weights in VARIANTS.items():
        variant = train_radius(drafter, cache, weights, seconds, seed)
        results.append(RadiusResult(name, variant, tabulate(variant, held_out, prefix)))
    return results
