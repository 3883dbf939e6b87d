"""A pair of LlamaGen's shape with random weights: a runner for the server, and a folder with what the device fetches.

In: the name of a size. Out: tensors of that shape and a bundle without a weights file, since nobody needs gigabytes of
noise on a disk. What the shape costs is real; what it draws means nothing.

The drafter is this project's one-layer one, for the same vocabulary. A device would carry a width of 512: 54 million
weights, of which 8-bit integers make 54 MB, and 20 million take part in a token. The pixel decoder is the embedded
pair's, for that vocabulary, not LlamaGen's: every method draws the same number of pixels once.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ciar.benchmarks.scale.sizes import GRID
from ciar.cloud_server.runner import ModelRunner
from ciar.cloud_server.transformer import Transformer, TransformerConfig, llamagen_config
from ciar.shared.bundle import Defaults, Manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.training import bundle_export
from ciar.training.bundle_export import write_captions, write_manifest
from ciar.training.drafter import Drafter, DrafterConfig, PairShape
from ciar.training.onnx_export import export_decoder, export_drafter, quantize
from ciar.training.tokenizer import Tokenizer, TokenizerConfig

FEATURE_DIM = 16
"""Rank of the interval features, as in the embedded pair; LlamaGen's own models have none."""

WEIGHT_STD = 0.02
"""LlamaGen's initialisation."""

GUIDANCE = 1.75
"""Above 1, so that the cloud runs two sequences, as in the paper's setting."""

ROLES = {file: role for file, role in bundle_export.ROLES.items() if file != "cloud.safetensors"}


@dataclass(frozen=True)
class Shape:
    """What a pair is built from."""

    cloud: TransformerConfig
    drafter: DrafterConfig


def shape_of(size: str) -> Shape:
    """The pair of a size in `sizes.SIZES`."""
    if size == "tiny":  # for tests: everything but the width of things is as in the others
        cloud = llamagen_config("B", GRID).model_copy(
            update={"dim": 64, "num_layers": 2, "num_heads": 2, "ffn_dim": 128, "vocab_size": 1024}
        )
        drafter = DrafterConfig(dim=64, num_heads=2, ffn_dim=128)
    else:
        cloud = llamagen_config(size, GRID)  # type: ignore[arg-type]
        drafter = DrafterConfig(dim=512, num_heads=8, ffn_dim=1536)
    return Shape(cloud.model_copy(update={"feature_dim": FEATURE_DIM}), drafter)


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


def write_folder(folder: Path, shape: Shape, prompts: Sequence[str], prefix_rate: float) -> Manifest:
    """The device's graphs, captions and manifest. The prompts are the model's classes, from 1 on."""
    cloud = shape.cloud
    torch.manual_seed(0)
    pair = PairShape(
        vocab_size=cloud.vocab_size,
        grid=cloud.grid_width,
        num_phrases=cloud.num_phrases,
        caption_length=cloud.caption_length,
        feature_dim=cloud.feature_dim,
    )
    with tempfile.TemporaryDirectory() as scratch:
        drafter = Path(scratch) / "drafter.onnx"
        export_drafter(Drafter(shape.drafter, pair).eval(), drafter)
        quantize(drafter, folder / "drafter.onnx")
    tokenizer = Tokenizer(TokenizerConfig(vocab_size=cloud.vocab_size, grid=cloud.grid_width))
    export_decoder(tokenizer.eval(), folder / "decoder.onnx")
    (folder / "cloud.json").write_text(cloud.model_dump_json(indent=1), encoding="utf-8")
    write_captions(_captions(prompts), folder)
    scores = np.linspace(0, 1, 101)  # a trace's gate looks at no quantile
    return write_manifest(
        folder,
        cloud,
        shape.drafter,
        ROLES,
        name="random weights",
        version="1",
        defaults=Defaults(guidance=GUIDANCE, prefix_rate=prefix_rate),
        uncertainty=scores,
        ambiguity=scores,
    )


def _captions(prompts: Sequence[str]) -> CaptionVocabulary:
    """A vocabulary in which each prompt is one phrase, as the server's reading of prompts would spell it."""
    phrases = (" ".join(re.findall(r"[\w'-]+", prompt.lower())) for prompt in prompts)
    return CaptionVocabulary(length=1, phrases=tuple(dict.fromkeys(phrases)))
