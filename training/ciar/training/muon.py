"""Muon: momentum, then the nearest orthogonal matrix as the update.

torch.optim.Muon works in bfloat16, which costs half of a training step on processors without bfloat16 units; here
the precision is the caller's, matrices of one shape are orthogonalised together, and fused projections are split into
their parts.
Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, num_steps: int) -> Tensor:
    """Newton-Schulz towards the nearest orthogonal matrices of (N, m, n), m ≤ n."""
    a, b, c = COEFFICIENTS
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(num_steps):
        gram = x @ x.mT  # (N, m, m)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """For matrices (out, in); a matrix whose `out` is a multiple k·in, k > 1, is taken as k stacked square ones."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        num_steps: int = 4,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """dtype: what the updates are computed in; parameters and momentum stay as they are."""
        self.dtype = dtype
        super().__init__(
            list(params), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "num_steps": num_steps}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of RMS 0.2·lr per entry, AdamW's usual size."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = torch.lerp(p.grad, buffer, group["momentum"])  # Nesterov
                parts = p.shape[0] // p.shape[1] if p.shape[0] % p.shape[1] == 0 else 1
                for part, piece in zip(p.chunk(parts), update.chunk(parts), strict=True):
                    if piece.shape[0] > piece.shape[1]:
                        part, piece = part.mT, piece.mT  # views: what is written to them reaches p
                    by_shape[piece.shape].append((part, piece))
            for shape, pairs in by_shape.items():
                stacked = torch.stack([piece for _, piece in pairs])
                updates = orthogonalise(stacked.to(self.dtype), group["num_steps"]).to(stacked.dtype)
                scale = 0.2 * max(shape) ** 0.5
                for (part, _), update in zip(pairs, updates, strict=True):
                    part.mul_(1 - group["lr"] * group["weight_decay"])
                    part.add_(update, alpha=-group["lr"] * scale)
