"""What the drafter learns from: sequences with the cloud's guided law at every position.

Flows in: a cloud model, painted data, optionally a drafter for mixed roll-outs. Flows out: a `LawCache`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cloud_server.transformer import Transformer
from training.captions import Captioner
from training.cloud_training import TokenData
from training.drafter import Drafter, DrafterStepper
from training.palette import FOREGROUNDS, GROUNDS
from training.sampling import guide, multinomial, roll_out


@dataclass(frozen=True)
class LawCache:
    """Sequences and the guided law they were (or would have been) continued with."""

    condition: Tensor  # int64 (N, C)
    tokens: Tensor  # int64 (N, T)
    law: Tensor  # float16 (N, T, V) log-probabilities

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Condition, tokens and float32 log-probabilities of some rows."""
        return self.condition[rows], self.tokens[rows], self.law[rows].float()

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for rows in torch.arange(len(self)).split(size):
            yield self.batch(rows)

    def __add__(self, other: LawCache) -> LawCache:
        return LawCache(*(torch.cat(pair) for pair in zip(self.parts, other.parts, strict=True)))

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.condition, self.tokens, self.law


def random_captions(data: TokenData, captioner: Captioner, count: int, rng: np.random.Generator) -> Tensor:
    """Training captions (words left out as in training, never all) of random drawings in random colours: (count, C)."""
    rows = rng.choice(len(data.concept), count, p=data.row_weights())
    labels = np.stack(
        [
            data.concept[rows],
            data.style[rows],
            rng.integers(0, len(FOREGROUNDS), count),
            rng.integers(0, len(GROUNDS), count),
        ],
        axis=1,
    )
    drawn, full = captioner.draw(labels, rng), captioner.full(labels)
    return torch.from_numpy(np.where(drawn.any(1, keepdims=True), drawn, full))


@torch.inference_mode()
def read_data(
    model: Transformer, data: TokenData, captioner: Captioner, guidance: float, count: int, rng: np.random.Generator
) -> LawCache:
    """The guided law along sequences of the data set."""
    rows = rng.choice(len(data.concept), count, p=data.row_weights())
    tokens, labels = data.paint(rows, rng)
    drawn, full = captioner.draw(labels, rng), captioner.full(labels)
    condition = torch.from_numpy(np.where(drawn.any(1, keepdims=True), drawn, full))
    laws = []
    for c, x in zip(tqdm(condition.split(16), desc="read data"), tokens.split(16), strict=True):
        logits = model(torch.cat([c, torch.zeros_like(c)]), x[:, :-1].repeat(2, 1))  # (2B, T, V)
        laws.append(guide(logits.unflatten(0, (2, len(x))), guidance).clamp(min=-30).half())
    return LawCache(condition, tokens, torch.cat(laws))


def write_pictures(
    model: Transformer,
    condition: Tensor,
    guidance: float,
    seed: int,
    drafter: Drafter | None = None,
    local_share: float = 0.0,
    batch_size: int = 48,
) -> LawCache:
    """Sequences written by the cloud, or by cloud and drafter in turns (`local_share` of the drafter's tokens)."""
    generator = torch.Generator().manual_seed(seed)
    caches = []
    for part in tqdm(condition.split(batch_size), desc="roll out"):
        choose = multinomial(generator)
        if drafter is not None and local_share > 0:
            choose = _mixed(drafter, part, generator, local_share)
        tokens, law = roll_out(model, part, guidance, choose, keep_law=True)
        assert law is not None
        caches.append(LawCache(part, tokens, law))
    return sum(caches[1:], caches[0])


def _mixed(drafter: Drafter, condition: Tensor, generator: torch.Generator, local_share: float):
    """A choice that takes the drafter's draw with probability `local_share`, else the cloud's; noise in common."""
    stepper = DrafterStepper(drafter, condition)
    known = torch.zeros(len(condition), drafter.pair.num_tokens, dtype=torch.int64)

    def choose(t: int, log_probs: Tensor) -> Tensor:
        drafted = torch.log_softmax(stepper.step(t, known).center[:, 0], dim=-1)  # (B, V)
        noise = -torch.log(-torch.log(torch.rand(log_probs.shape, generator=generator).clamp(min=1e-20)))
        local = torch.rand(len(condition), generator=generator) < local_share
        known[:, t] = torch.where(local, (drafted + noise).argmax(-1), (log_probs + noise).argmax(-1))
        return known[:, t]

    return choose
