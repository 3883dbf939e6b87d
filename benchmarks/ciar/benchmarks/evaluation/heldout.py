"""How well the cloud model predicts drawings that it was never trained on.

In: a bundle's cloud model, and the held-out splits of the run that trained it (its tokenizer turns drawings into
tokens; a bundle holds only the way back). Out: nats a token. Knows nothing of drafters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ciar.cloud_server.transformer import Transformer
from ciar.shared.errors import InvalidRequest
from ciar.training.dataset import SPLITS, DatasetError
from ciar.training.pipeline import Run
from ciar.training.settings import ConfigError, RunPaths, load_config
from ciar.training.token_data import TokenSource

NUM_EXAMPLES = 256
"""Drawings of a split, at most; always the same."""
_BATCH = 32


class Loss(NamedTuple):
    """Nats a token, teacher-forced, without guidance."""

    num_pictures: int
    right: float
    """With the drawing's own caption."""
    wrong: float
    """With another drawing's: what the caption is worth."""


def held_out_sources(folder: Path, config: Path) -> dict[str, TokenSource]:
    """The held-out splits of a run in `folder`, by name; empty ones are left out.

    Raises InvalidRequest that names what is missing: the tokenizer, the data, or a configuration that fits them.
    """
    try:
        run = Run(load_config(config), RunPaths(folder))
        return {name: run.split(name) for name in SPLITS[1:] if len(run.dataset.rows(name))}
    except (ConfigError, DatasetError, FileNotFoundError, ValueError) as exc:
        raise InvalidRequest(f"run: {exc}") from exc


def held_out_losses(
    model: Transformer, sources: Mapping[str, TokenSource], count: int = NUM_EXAMPLES
) -> dict[str, Loss]:
    """The loss on each split. Raises InvalidRequest if its tokens or captions are not those of the model."""
    losses = {}
    for name, source in sources.items():
        examples = source.examples(count, np.random.default_rng(1))
        shape = examples.tokens.shape[1], examples.captions.shape[1]
        if shape != (model.config.num_tokens, model.config.caption_length):
            raise InvalidRequest(
                f"run: its pictures have {shape[0]} tokens and captions of {shape[1]}, the bundle's "
                f"{model.config.num_tokens} and {model.config.caption_length}; name the run that trained the bundle"
            )
        right, wrong = (_loss(model, examples.tokens, c) for c in (examples.captions, examples.other_captions))
        losses[name] = Loss(len(examples.tokens), right, wrong)
    return losses


@torch.inference_mode()
def _loss(model: Transformer, tokens: Tensor, captions: Tensor) -> float:
    """Mean cross-entropy of tokens (N, T) under captions (N, C)."""
    total = 0.0
    for part, caption in zip(tokens.split(_BATCH), captions.split(_BATCH), strict=True):
        logits = model(caption, part[:, :-1])  # (B, T, V)
        total += F.cross_entropy(logits.flatten(0, 1), part.flatten(), reduction="sum").item()
    return total / tokens.numel()
