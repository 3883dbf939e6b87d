"""The cloud model: LlamaGen's decoder-only transformer over a raster of visual tokens.

In: condition ids and token ids, or already embedded packed rows. Out: float32 logits.
Knows nothing of sessions, scheduling or sampling. Parameter names are LlamaGen's, so that its checkpoints load as
they are; what LlamaGen does not have (phrase table, interval-feature projection) has names of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q, k, v), each (N, H, Dh) -> (N, H, Dh): how new rows see old ones; training and serving differ only here."""


CausalAttention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k, v, each (B, H, S, Dh) -> (B, H, S, Dh), every row seeing itself and those before it."""


def fused_causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's own."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class TransformerConfig(BaseModel):
    """The shape of a cloud model; everything needed to build it without its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(gt=0)
    """Width d of the residual stream."""
    num_layers: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    ffn_dim: int = Field(gt=0)
    """Width of the SwiGLU hidden layer."""
    vocab_size: int = Field(gt=1)
    """Number V of visual tokens."""
    grid_height: int = Field(gt=0)
    grid_width: int = Field(gt=0)
    conditioning: Literal["phrases", "class"] = "phrases"
    """`phrases`: a bag of caption phrases, 0 is padding; `class`: LlamaGen c2i, the last id is the null class."""
    num_phrases: int = Field(gt=0)
    """Number of phrases, or of classes; the table has one row more (padding, or the null class)."""
    caption_length: int = Field(gt=0)
    """Number C of conditioning positions in front of the picture; 1 for `class`."""
    prefix_rope: Literal["zeros", "identity"] = "zeros"
    """LlamaGen multiplies q and k of the conditioning rows by literal zeros; `identity` leaves them unrotated."""
    condition_everywhere: bool = False
    """Add the summed caption embedding to the input of every picture token (ours)."""
    feature_dim: int = Field(default=0, ge=0)
    """Rank r of the interval features that the device sends; 0 for a model without them."""
    norm_eps: float = 1e-5
    rope_base: float = 10_000.0

    @property
    def num_tokens(self) -> int:
        """Number T of tokens in a picture."""
        return self.grid_height * self.grid_width

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @model_validator(mode="after")
    def _check(self) -> TransformerConfig:
        if self.dim % self.num_heads or self.head_dim % 4:
            raise ValueError(f"dim {self.dim} over num_heads {self.num_heads} must be a multiple of 4 (2D RoPE)")
        if self.conditioning == "class" and self.caption_length != 1:
            raise ValueError("class conditioning has caption_length 1")
        return self


def llamagen_config(size: Literal["B", "L", "XL", "XXL", "3B"], grid: int = 16) -> TransformerConfig:
    """The class-conditional LlamaGen of that size (arXiv 2406.06525, table 1) over a `grid` × `grid` picture."""
    num_layers, num_heads, dim = {
        "B": (12, 12, 768),
        "L": (24, 16, 1024),
        "XL": (36, 20, 1280),
        "XXL": (48, 24, 1536),
        "3B": (24, 32, 3200),
    }[size]
    return TransformerConfig(
        dim=dim,
        num_layers=num_layers,
        num_heads=num_heads,
        ffn_dim=-(-int(8 * dim / 3) // 256) * 256,
        vocab_size=16_384,
        grid_height=grid,
        grid_width=grid,
        conditioning="class",
        num_phrases=1000,
        caption_length=1,
    )


def rope_table(config: TransformerConfig) -> Tensor:
    """2D rotary factors of every position, prefix first: complex64 (C + T, Dh/2).

    The first half of the interleaved pairs turns with the row, the second half with the column; picture token 0
    gets the identity. The prefix rows are zeros, as LlamaGen's are, or the identity (`prefix_rope`).
    """
    half = config.head_dim // 2
    frequencies = config.rope_base ** (-torch.arange(0, half, 2, dtype=torch.float32) / half)  # (Dh/4,)
    rows = torch.arange(config.grid_height)[:, None, None] * frequencies  # (h, 1, Dh/4)
    columns = torch.arange(config.grid_width)[None, :, None] * frequencies  # (1, w, Dh/4)
    shape = (config.grid_height, config.grid_width, half // 2)
    angles = torch.cat([rows.expand(shape), columns.expand(shape)], dim=-1).flatten(0, 1)  # (T, Dh/2)
    picture = torch.polar(torch.ones_like(angles), angles)  # (T, Dh/2)
    prefix = torch.full((config.caption_length, half), float(config.prefix_rope == "identity"))
    return torch.cat([prefix.to(torch.complex64), picture])  # (C + T, Dh/2)


def rotate(q: Tensor, k: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the interleaved pairs of q and k, each (N, H, Dh), by factors rope (N, Dh/2), in float32, and cast back."""
    pairs = torch.view_as_complex(torch.stack([q, k]).float().unflatten(-1, (-1, 2)))  # (2, N, H, Dh/2)
    turned = torch.view_as_real(pairs * rope[:, None]).flatten(-2).type_as(q)  # (2, N, H, Dh)
    return turned[0], turned[1]


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32, cast back, then the weight: LlamaGen's order of operations."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).type_as(x) * self.weight


class Attention(nn.Module):
    """Multi-head attention; what the new rows attend to is the caller's business."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.wqkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.wo = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, rope: Tensor, layer: int, attend: Attend) -> Tensor:
        q, k, v = self.wqkv(x).view(-1, 3, self.num_heads, self.head_dim).unbind(1)  # (N, H, Dh) each
        return self.wo(attend(layer, *rotate(q, k, rope), v).reshape(x.shape))


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) · w3 x)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w2 = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, x: Tensor, rope: Tensor, layer: int, attend: Attend) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rope, layer, attend)
        return x + self.feed_forward(self.ffn_norm(x))


class Conditioning(nn.Module):
    """The table of caption phrases or classes: ids (B, C) -> prefix rows (B, C, d)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(config.num_phrases + 1, config.dim)

    def forward(self, ids: Tensor) -> Tensor:
        return self.embedding_table(ids)


class Transformer(nn.Module):
    """The cloud model. Position C + i holds picture token i; the row of position C + i − 1 predicts it."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_embedding = Conditioning(config)
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.feature_projection = nn.Linear(config.feature_dim, config.dim, bias=False) if config.feature_dim else None
        self.register_buffer("rope", rope_table(config), persistent=False)  # (C + T, Dh/2)
        self.apply(self._initialise)

    def reset_rope(self) -> None:
        """Compute the rotary table anew, for a model that was built on the meta device."""
        self.rope = rope_table(self.config).to(self.output.weight.device)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    @property
    def null_condition(self) -> Tensor:
        """The unconditional caption that guidance subtracts: int64 (C,)."""
        null_id = self.config.num_phrases if self.config.conditioning == "class" else 0
        return torch.full((self.config.caption_length,), null_id, device=self.output.weight.device)

    def embed_prefix(self, condition: Tensor) -> Tensor:
        """Conditioning rows of ids (B, C): (B, C, d)."""
        return self.cls_embedding(condition)

    def condition_bias(self, prefix: Tensor) -> Tensor | None:
        """What `condition_everywhere` adds to every picture row, from prefix rows (B, C, d): (B, d), or nothing."""
        return prefix.sum(1) if self.config.condition_everywhere else None

    def embed_tokens(self, tokens: Tensor, features: Tensor | None = None) -> Tensor:
        """Input rows E(x) + f of token ids (…); `features` (…, r) are the device's interval features, 0 where none."""
        rows = self.tok_embeddings(tokens)  # (…, d)
        if features is not None and self.feature_projection is not None:
            rows = rows + self.feature_projection(features)
        return rows

    def run(self, x: Tensor, rope: Tensor, attend: Attend) -> Tensor:
        """All layers and the final norm over packed rows x (N, d) at positions with factors rope (N, Dh/2)."""
        for layer, block in enumerate(self.layers):
            x = block(x, rope, layer, attend)
        return self.norm(x)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) in float32 of normed rows (…, d)."""
        return self.output(hidden).float()

    def forward(
        self,
        condition: Tensor,
        tokens: Tensor,
        features: Tensor | None = None,
        attention: CausalAttention = fused_causal_attention,
    ) -> Tensor:
        """Teacher-forced logits of tokens 0 … n.

        condition: int64 (B, C); tokens: int64 (B, n), n < T + 1; features: float (B, n, r) or None.
        Returns float32 (B, n + 1, V): entry t is the distribution of token t given the tokens before it.
        """
        batch = len(tokens)
        prefix = self.embed_prefix(condition)  # (B, C, d)
        rows = self.embed_tokens(tokens, features)  # (B, n, d)
        if (bias := self.condition_bias(prefix)) is not None:
            rows = rows + bias[:, None]
        x = torch.cat([prefix, rows], dim=1)  # (B, S, d)
        length = x.shape[1]

        def causal(_layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (z.unflatten(0, (batch, length)).transpose(1, 2) for z in (q, k, v))  # (B, H, S, Dh)
            return attention(q, k, v).transpose(1, 2).flatten(0, 1)

        rope = self.rope[:length].repeat(batch, 1)  # (B·S, Dh/2)
        hidden = self.run(x.flatten(0, 1), rope, causal).unflatten(0, (batch, length))  # (B, S, d)
        return self.head(hidden[:, self.config.caption_length - 1 :])  # (B, n + 1, V)
