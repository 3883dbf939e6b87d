"""Free-running guided sampling of the cloud model, many pictures at a time.

Flows in: a `Transformer` and captions. Flows out: tokens, and on request the guided law of every position.
For training and contact sheets only: the server has an engine of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ciar.cloud_server.transformer import Transformer

Choose = Callable[[int, Tensor], Tensor]
"""(position t, guided log-probabilities (B, V)) -> the tokens (B,) to go on with."""


def guide(logits: Tensor, guidance: float) -> Tensor:
    """Log-probabilities of l = u + s·(c − u). logits: (2, …, V), [0] with the caption, [1] without. (…, V)."""
    return torch.log_softmax(logits[1] + guidance * (logits[0] - logits[1]), dim=-1)


def gumbel(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise."""
    return -torch.log(-torch.log(torch.rand(tuple(shape), generator=generator).clamp(min=1e-20)))


def multinomial(generator: torch.Generator, temperature: float = 1.0) -> Choose:
    """Draw from the law at that temperature."""

    def choose(_position: int, log_probs: Tensor) -> Tensor:
        return (log_probs / temperature + gumbel(log_probs.shape, generator)).argmax(-1)

    return choose


@torch.inference_mode()
def roll_out(
    model: Transformer, condition: Tensor, guidance: float, choose: Choose, *, keep_law: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Write whole pictures for captions (B, C), on the model's device.

    `choose` sees the law on the CPU, so a seed draws the same whatever the device. Returns, on the CPU, tokens
    int64 (B, T) and, if asked, the guided log-probabilities float16 (B, T, V).
    """
    config, device = model.config, model.output.weight.device
    batch, both = len(condition), torch.cat([condition, torch.zeros_like(condition)]).to(device)  # (2B, C)
    rows, prefix_length = len(both), config.caption_length
    shape = (config.num_layers, rows, config.num_heads, prefix_length + config.num_tokens, config.head_dim)
    keys, values = torch.empty(shape, device=device), torch.empty(shape, device=device)
    prefix = model.embed_prefix(both)  # (2B, C, d)
    bias = model.condition_bias(prefix)  # (2B, d) or None

    def run(x: Tensor, start: int) -> Tensor:
        """Rows x (2B, n, d) at positions start … -> hidden of the last of them (2B, d)."""
        count = x.shape[1]
        stop = start + count

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (z.unflatten(0, (rows, count)).transpose(1, 2) for z in (q, k, v))  # (2B, H, n, Dh)
            keys[layer, :, :, start:stop], values[layer, :, :, start:stop] = k, v
            seen_k, seen_v = keys[layer, :, :, :stop], values[layer, :, :, :stop]
            out = torch.nn.functional.scaled_dot_product_attention(q, seen_k, seen_v, is_causal=count > 1)
            return out.transpose(1, 2).flatten(0, 1)  # (2B·n, H, Dh)

        rope = model.rope[start:stop].repeat(rows, 1)
        return model.run(x.flatten(0, 1), rope, attend).unflatten(0, (rows, count))[:, -1]

    hidden = run(prefix, 0)  # (2B, d)
    tokens = torch.empty(batch, config.num_tokens, dtype=torch.int64)
    law = torch.empty(batch, config.num_tokens, config.vocab_size, dtype=torch.float16) if keep_law else None
    for t in range(config.num_tokens):
        log_probs = guide(model.output(hidden).float().unflatten(0, (2, batch)), guidance).cpu()  # (B, V)
        if law is not None:
            law[:, t] = log_probs.clamp(min=-30).half()
        tokens[:, t] = choose(t, log_probs)
        if t + 1 < config.num_tokens:
            x = model.embed_tokens(tokens[:, t].to(device)).repeat(2, 1)  # (2B, d)
            hidden = run((x if bias is None else x + bias)[:, None], prefix_length + t)
    return tokens, law
