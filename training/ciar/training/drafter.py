"""The one-layer drafter with Inter-Head, and its graph for the device.

Flows in: the known tokens around each position, the caption, a key/value cache. Flows out: the drafted law with its
interval. Knows nothing of the cloud model, of gates or of training.

The drafter predicts token t from the row of position t, whose input is the known tokens around it: local context comes
for free, and the single attention layer is left to find the rest. A feed-forward layer may come before the attention,
so that its keys and values know of pairs of neighbours (ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torch.onnx.ops
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from ciar.shared.grid import NEAREST, Offset, neighbour_index


class DrafterConfig(BaseModel):
    """Size of the drafter; vocabulary, grid and captions come from the pair. A head is a multiple of 16 wide."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(default=256, gt=0)
    num_heads: int = Field(default=8, gt=0)
    ffn_dim: int = Field(default=768, gt=0)
    first_ffn_dim: int = Field(default=0, ge=0)
    """Width of a feed-forward layer before the attention; 0 for none."""
    neighbours: tuple[Offset, ...] = Field(default=NEAREST, min_length=1)
    """(rows up, columns to the right) of the tokens that a row is made of."""
    rope_base: float = 1_000.0

    @model_validator(mode="after")
    def _check(self) -> DrafterConfig:
        if self.dim % (16 * self.num_heads):
            raise ValueError("dim: must be a multiple of 16 · num_heads, as the device's attention wants its heads")
        return self

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads


class PairShape(BaseModel):
    """What a drafter shares with its cloud model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int
    grid: int
    num_phrases: int
    caption_length: int
    feature_dim: int

    @property
    def num_tokens(self) -> int:
        return self.grid * self.grid


@dataclass(frozen=True)
class Draft:
    """What the drafter says of n positions."""

    center: Tensor  # (…, n, V) logits
    spread: Tensor  # (…, n, V) radius before its softplus
    hidden: Tensor  # (…, n, d)

    @property
    def radius(self) -> Tensor:
        """(…, n, V) ≥ 0, in log-odds."""
        return F.softplus(self.spread)

    def interval(self) -> tuple[Tensor, Tensor]:
        """Probability bounds (lower, upper), each (…, n, V): InterFuse, for e^−softplus(x) = sigmoid(−x)."""
        return scale_odds(self.center, torch.sigmoid(-self.spread))


def interfuse(center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Log-odds of softmax(center) shifted by ∓radius: (lower, upper). As `shared.intervals.interfuse`, in float32."""
    return scale_odds(center, torch.exp(-radius))


def scale_odds(center: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(center) with its odds times and over a factor in (0, 1]: (lower, upper), with hardly a transcendental."""
    m = torch.softmax(center, dim=-1)
    rest = 1.0 - m
    less, rest_less = m * factor, rest * factor
    return less / (less + rest), m / (m + rest_less)


def scores(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ω, Σ and U = Ω·Σ of bounds (…, V): three (…)."""
    width = upper - lower
    ambiguity = width.sum(-1)
    deviation = width - (ambiguity / width.shape[-1]).unsqueeze(-1)
    disparity = torch.linalg.vector_norm(deviation, dim=-1) * width.shape[-1] ** -0.5
    return ambiguity, disparity, ambiguity * disparity


def gather_neighbours(tokens: Tensor, index: Tensor, none_id: int) -> Tensor:
    """Token ids around positions: tokens (B, T), index (n, K) with T for none → int64 (B, n, K)."""
    return F.pad(tokens, (0, 1), value=none_id)[:, index]


class RMSNorm(nn.Module):
    """Root-mean-square norm, spelt as ONNX Runtime recognises it: it runs these operations as one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


class FeedForward(nn.Module):
    """Norm, then SwiGLU: w2(silu(w1 x) · w3 x); what is added to the residual stream."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.w1 = nn.Linear(dim, hidden_dim, bias=False)
        self.w3 = nn.Linear(dim, hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=False)
        with torch.no_grad():
            self.w2.weight.mul_(0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Drafter(nn.Module):
    """One transformer layer over grid positions, with a centre and a radius head.

    The layer comes in three parts (rows, attention, heads) because training, roll-outs and the device keep their
    caches in different shapes; everything else is common.
    """

    rope: Tensor
    neighbour_index: Tensor

    def __init__(self, config: DrafterConfig, pair: PairShape) -> None:
        super().__init__()
        self.config, self.pair = config, pair
        dim = config.dim
        num_neighbours = len(config.neighbours)
        self.neighbours = nn.Embedding(num_neighbours * (pair.vocab_size + 1), dim)
        self.positions = nn.Embedding(pair.num_tokens, dim)
        self.phrases = nn.Embedding(pair.num_phrases + 1, dim)
        self.first_ffn = FeedForward(dim, config.first_ffn_dim) if config.first_ffn_dim else None
        self.attention_norm, self.norm = RMSNorm(dim), RMSNorm(dim)
        self.wqkv = nn.Linear(dim, 3 * dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)
        self.ffn = FeedForward(dim, config.ffn_dim)
        self.center_head = nn.Linear(dim, pair.vocab_size)
        self.radius_head = nn.Linear(dim, pair.vocab_size)
        self.feature_head = nn.Linear(dim + 2 * pair.vocab_size, pair.feature_dim, bias=False)
        self.register_buffer("rope", self._rope(), persistent=False)  # (2, T, D/2): cos, sin
        self.register_buffer(
            "table_offsets", torch.arange(num_neighbours) * (pair.vocab_size + 1), persistent=False
        )  # (K,)
        index = neighbour_index(pair.grid, pair.grid, config.neighbours)
        self.register_buffer("neighbour_index", torch.from_numpy(index), persistent=False)  # (T, K)
        for table in (self.neighbours, self.positions, self.phrases):
            nn.init.normal_(table.weight, std=0.3)
        nn.init.normal_(self.neighbours.weight, std=0.6 * num_neighbours**-0.5)
        with torch.no_grad():
            self.phrases.weight[0].zero_()
            self.wo.weight.mul_(0.2)
            self.center_head.weight.mul_(0.3)
            self.radius_head.weight.mul_(0.1)

    def _rope(self) -> Tensor:
        """cos and sin of every position: half of the pairs turn with the row, half with the column."""
        quarter = self.config.head_dim // 4
        frequencies = self.config.rope_base ** (-torch.arange(quarter) / quarter)  # (D/4,)
        t = torch.arange(self.pair.num_tokens)
        angles = torch.cat(
            [(t // self.pair.grid)[:, None] * frequencies, (t % self.pair.grid)[:, None] * frequencies], dim=1
        )  # (T, D/2)
        return torch.stack([angles.cos(), angles.sin()])

    def embed(self, neighbours: Tensor, positions: Tensor, condition: Tensor) -> Tensor:
        """Input rows of neighbours (B, n, K) at positions (n,) under captions (B, C): (B, n, d)."""
        around = self.neighbours(neighbours + self.table_offsets).sum(-2)  # (B, n, d)
        caption = self.phrases(condition).sum(1)  # (B, d); id 0 is a row of zeros
        x = around + self.positions(positions) + caption[:, None]
        return x if self.first_ffn is None else x + self.first_ffn(x)

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k (rotated) and v of rows (B, n, d): three (B, n, H, D)."""
        qkv = self.wqkv(self.attention_norm(x)).unflatten(-1, (3 * self.config.num_heads, self.config.head_dim))
        rotated, v = qkv.split([2 * self.config.num_heads, self.config.num_heads], dim=2)  # (B, n, 2H, D), (B, n, H, D)
        cos, sin = self.rope[0, positions][:, None], self.rope[1, positions][:, None]  # (n, 1, D/2)
        a, b = rotated.chunk(2, dim=-1)
        rotated = torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
        q, k = rotated.chunk(2, dim=2)
        return q, k, v

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
        """Attention of q (B, n, H, D) to cached rows (B, T, H, D) at or before their own positions: (B, n, d)."""
        visible = torch.arange(keys.shape[1])[None] <= positions[:, None]  # (n, T)
        weights = q.transpose(1, 2) @ keys.permute(0, 2, 3, 1) * self.config.head_dim**-0.5  # (B, H, n, T)
        weights = torch.softmax(torch.where(visible, weights, -1e9), dim=-1)
        return (weights @ values.transpose(1, 2)).transpose(1, 2).flatten(2)

    def finish(self, x: Tensor, attended: Tensor) -> Draft:
        """The rest of the layer and the heads. x, attended: (B, n, d)."""
        x = x + self.wo(attended)
        hidden = self.norm(x + self.ffn(x))
        return Draft(self.center_head(hidden), self.radius_head(hidden), hidden)

    def feature(self, draft: Draft) -> Tensor:
        """φ(concat(hidden, lower, upper)): (…, r)."""
        lower, upper = draft.interval()
        return self.feature_head(torch.cat([draft.hidden, lower, upper], dim=-1))

    def forward(self, condition: Tensor, tokens: Tensor) -> Draft:
        """Teacher-forced drafts of all positions. condition: (B, C); tokens: (B, T)."""
        positions = torch.arange(self.pair.num_tokens)
        neighbours = gather_neighbours(tokens, self.neighbour_index, self.pair.vocab_size)
        x = self.embed(neighbours, positions, condition)  # (B, T, d)
        q, k, v = (z.transpose(1, 2) for z in self.project(x, positions))  # (B, H, T, D)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.finish(x, attended.transpose(1, 2).flatten(2))


class DrafterStepper:
    """Drafts many pictures position by position, for roll-outs."""

    def __init__(self, drafter: Drafter, condition: Tensor) -> None:
        self.drafter, self.condition = drafter, condition
        shape = (len(condition), drafter.pair.num_tokens, drafter.config.num_heads, drafter.config.head_dim)
        self.keys, self.values = torch.zeros(shape), torch.zeros(shape)

    def step(self, t: int, tokens: Tensor) -> Draft:
        """Drafts of position t, of which tokens (B, T) are known before t. Shapes (B, 1, …)."""
        drafter, positions = self.drafter, torch.tensor([t])
        neighbours = gather_neighbours(tokens, drafter.neighbour_index[t : t + 1], drafter.pair.vocab_size)
        x = drafter.embed(neighbours, positions, self.condition)
        q, k, v = drafter.project(x, positions)
        self.keys[:, t : t + 1], self.values[:, t : t + 1] = k, v
        return drafter.finish(x, drafter.attend(q, self.keys[:, : t + 1], self.values[:, : t + 1], positions))


class DrafterGraph(nn.Module):
    """The graph of drafter.onnx: n rows at once, one picture, cache in and out.

    For export only: rotation, cache and attention are one operator of ONNX Runtime, which torch cannot run. It reads
    no rows after a position's own, and where caches in and out are one buffer it writes the new rows alone.
    """

    def __init__(self, drafter: Drafter) -> None:
        super().__init__()
        self.drafter = drafter

    def forward(
        self, neighbours: Tensor, start: Tensor, condition: Tensor, cache_key: Tensor, cache_value: Tensor
    ) -> tuple[Tensor, ...]:
        """neighbours (n, K), start (1,), condition (C,), caches (1, H, T, D) → the outputs named in `GRAPH_OUTPUTS`."""
        drafter = self.drafter
        positions = torch.arange(neighbours.shape[0]) + start  # (n,)
        x = drafter.embed(neighbours[None], positions, condition[None])  # (1, n, d)
        attended, new_key, new_value = self._attend(x, positions, cache_key, cache_value)
        draft = drafter.finish(x.squeeze(0), attended.squeeze(0))
        lower, upper = draft.interval()
        feature = drafter.feature_head(torch.cat([draft.hidden, lower, upper], dim=-1))
        return (draft.center, *scores(lower, upper), feature, new_key, new_value)

    def _attend(self, x: Tensor, positions: Tensor, cache_key: Tensor, cache_value: Tensor) -> Sequence[Tensor]:
        """`Drafter.project` and `Drafter.attend` of rows (1, n, d) with their caches: (1, n, d) and the new caches."""
        drafter = self.drafter
        last = positions[-1:].to(torch.int32)
        qkv = drafter.wqkv(drafter.attention_norm(x))  # (1, n, 3d)
        return torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            (qkv, None, None, cache_key, cache_value, last, last + 1, drafter.rope[0], drafter.rope[1]),
            {"num_heads": drafter.config.num_heads, "kv_num_heads": drafter.config.num_heads, "do_rotary": 1},
            dtypes=(x.dtype,) * 3,
            shapes=(x.shape, cache_key.shape, cache_value.shape),
            version=1,
        )


GRAPH_INPUTS = ("neighbours", "start", "condition", "cache_key", "cache_value")
GRAPH_OUTPUTS = (
    "center", "ambiguity", "disparity", "uncertainty", "feature", "new_cache_key", "new_cache_value",
)  # fmt: skip
