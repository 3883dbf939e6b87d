"""A complete bundle with random weights, small enough for a test to load in a moment.

The cloud model is real; the device's two graphs are arbitrary bytes, since a server only hands them out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from ciar.cloud_server.transformer import Transformer, TransformerConfig

PHRASES = ("heart", "star", "light bulb", "sun", "filled", "outline", "red", "blue", "on cream", "on black")

CONFIG = TransformerConfig(
    dim=32,
    num_layers=2,
    num_heads=4,
    ffn_dim=64,
    vocab_size=64,
    grid_height=6,
    grid_width=6,
    conditioning="phrases",
    num_phrases=len(PHRASES),
    caption_length=4,
    prefix_rope="identity",
    condition_everywhere=True,
    feature_dim=4,
)

CAPTIONS = {
    "length": CONFIG.caption_length,
    "phrases": PHRASES,
    "aliases": {"lamp": "light bulb", "cream background": "on cream"},
    "kinds": {
        "concept": PHRASES[:4],
        "style": PHRASES[4:6],
        "colour": PHRASES[6:8],
        "ground": PHRASES[8:],
    },
    "examples": ["red filled heart on cream", "blue outline star"],
}


def make_transformer(config: TransformerConfig = CONFIG, *, seed: int = 0) -> Transformer:
    """A cloud model with weights so large that context, caption and features all matter and no law is flat."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Transformer(config)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.dim**-0.5)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.5)
        nn.init.normal_(model.output.weight, std=2.5 * config.dim**-0.5)  # logits of standard deviation 2.5
    return model.eval().requires_grad_(False)


def write_tiny_bundle(folder: Path, *, seed: int = 0) -> Path:
    """Write a bundle of 36 tokens from a vocabulary of 64 into `folder` (made if need be); returns the folder.

    The seed decides the weights and the bytes of the device's files, so bundles of two seeds are two pairs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = make_transformer(seed=seed).state_dict()
    save_file({name: tensor.half() for name, tensor in weights.items()}, folder / "cloud.safetensors")
    (folder / "cloud.json").write_text(CONFIG.model_dump_json(), encoding="utf-8")
    (folder / "captions.json").write_text(json.dumps(CAPTIONS), encoding="utf-8")
    (folder / "drafter.onnx").write_bytes(f"drafter {seed}".encode() * 40_000)  # more than one chunk
    (folder / "decoder.onnx").write_bytes(f"decoder {seed}".encode())
    roles = {
        "drafter.onnx": "device",
        "decoder.onnx": "device",
        "cloud.safetensors": "cloud",
        "cloud.json": "cloud",
        "captions.json": "cloud",
    }
    manifest = {
        "format": 1,
        "name": "tiny",
        "version": str(seed),
        "vocab_size": CONFIG.vocab_size,
        "grid_height": CONFIG.grid_height,
        "grid_width": CONFIG.grid_width,
        "caption_length": CONFIG.caption_length,
        "feature_dim": CONFIG.feature_dim,
        "image_height": 24,
        "image_width": 24,
        "drafter_heads": 2,
        "drafter_head_dim": 16,
        "defaults": {"guidance": 1.5, "gate": "quantile", "verify_share": 0.2},
        "uncertainty_quantiles": [i / 100 for i in range(101)],
        "ambiguity_quantiles": [i / 50 for i in range(101)],
        "files": {name: file_entry(folder / name, role) for name, role in roles.items()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return folder


def file_entry(path: Path, role: str) -> dict[str, object]:
    """What a manifest says of a file."""
    data = path.read_bytes()
    return {"role": role, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
