"""A cloud model of LlamaGen's shape with random weights: what it costs is real, what it computes means nothing."""

from __future__ import annotations

import torch

from ciar.benchmarks.scale.sizes import GRID
from ciar.cloud_server.runner import ModelRunner
from ciar.cloud_server.transformer import Transformer, TransformerConfig, llamagen_config

WEIGHT_STD = 0.02
"""LlamaGen's initialisation."""


def config_of(size: str) -> TransformerConfig:
    """The shape of a size in `sizes.SIZES`, for pictures of 16 × 16 tokens."""
    if size == "tiny":  # for tests: everything but the width of things is as in the others
        return llamagen_config("B", GRID).model_copy(
            update={"dim": 64, "num_layers": 2, "num_heads": 2, "ffn_dim": 128, "vocab_size": 1024}
        )
    return llamagen_config(size, GRID)  # type: ignore[arg-type]


@torch.no_grad()
def random_transformer(config: TransformerConfig, device: str, seed: int = 0) -> Transformer:
    """A cloud model whose weights are noise, in float32. Built without a first initialisation that nobody needs."""
    with torch.device("meta"):
        model = Transformer(config)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=WEIGHT_STD, generator=generator)
        else:
            parameter.fill_(1.0)  # norms
    model.reset_rope()
    return model.eval().requires_grad_(False)


def lean_runner(model: Transformer, num_slots: int, num_threads: int) -> ModelRunner:
    """A runner of the model, which is its own from now on.

    On a CPU the layers run in ONNX Runtime, which has a copy of the weights; the model's own are given back.
    """
    runner = ModelRunner(model, num_slots, num_threads)
    if model.output.weight.device.type == "cpu":
        model.layers.to("meta")
    return runner


def pass_bytes(model: Transformer) -> int:
    """Bytes of the weights that every pass reads: all but the tables, of which it reads a row or two."""
    return sum(p.numel() * p.element_size() for name, p in model.named_parameters() if "embedding" not in name)
