"""Puts a trained pair into a bundle folder: files, manifest, and the quantiles a device's gate starts from.

Flows in: trained modules and the data set's vocabulary. Flows out: a folder that `shared.bundle` loads.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from cloud_server.transformer import Transformer
from shared.bundle import MANIFEST, Defaults, FileEntry, Manifest, load_manifest, sha256_of
from shared.captions import CaptionVocabulary
from training.drafter import Drafter
from training.metrics import PositionTable
from training.settings import ExportConfig

ROLES = {
    "drafter.onnx": "device",
    "decoder.onnx": "device",
    "cloud.safetensors": "cloud",
    "cloud.json": "cloud",
    "captions.json": "cloud",
}


def write_cloud(model: Transformer, folder: Path) -> None:
    """cloud.safetensors (float16) and cloud.json."""
    state = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "cloud.safetensors")
    (folder / "cloud.safetensors").chmod(0o644)  # safetensors writes for the owner alone; a bundle is read by others
    (folder / "cloud.json").write_text(model.config.model_dump_json(indent=1) + "\n", encoding="utf-8")


def write_manifest(
    folder: Path,
    vocabulary: CaptionVocabulary,
    model: Transformer,
    drafter: Drafter,
    table: PositionTable,
    config: ExportConfig,
) -> Manifest:
    """captions.json and manifest.json over the files already in the folder; checked by reading it back.

    `table` holds the held-out positions whose scores become the quantiles.
    """
    (folder / "captions.json").write_text(vocabulary.model_dump_json(indent=1) + "\n", encoding="utf-8")
    grid = torch.linspace(0, 1, 101).numpy()
    shape = model.config
    manifest = Manifest(
        format=1,
        name=config.name,
        version=config.version,
        vocab_size=shape.vocab_size,
        grid_height=shape.grid_height,
        grid_width=shape.grid_width,
        caption_length=shape.caption_length,
        feature_dim=shape.feature_dim,
        image_height=4 * shape.grid_height,
        image_width=4 * shape.grid_width,
        drafter_heads=drafter.config.num_heads,
        drafter_head_dim=drafter.config.head_dim,
        drafter_neighbours=drafter.config.neighbours,
        defaults=Defaults(
            guidance=config.guidance,
            temperature=config.temperature,
            prefix_rate=config.prefix_rate,
            gate=config.gate,
            ask_share=config.ask_share,
        ),
        uncertainty_quantiles=tuple(float(f"{q:.6g}") for q in np.quantile(table.scores["U"], grid)),
        ambiguity_quantiles=tuple(float(f"{q:.6g}") for q in np.quantile(table.scores["Ω"], grid)),
        files={
            name: FileEntry(role=role, sha256=sha256_of(folder / name), size_bytes=(folder / name).stat().st_size)
            for name, role in ROLES.items()
        },
    )
    text = json.dumps(manifest.model_dump(mode="json"), indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return load_manifest(folder)
