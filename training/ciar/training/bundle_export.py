"""Puts a trained pair into a bundle folder: files, manifest, and the quantiles a device's gate starts from.

Flows in: a cloud model, the words of its captions, what a manifest says of the pair. Flows out: a folder that
`ciar.shared.bundle` loads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from ciar.cloud_server.transformer import Transformer, TransformerConfig
from ciar.shared.bundle import MANIFEST, Defaults, FileEntry, Manifest, load_manifest, sha256_of
from ciar.shared.conditioning import CaptionVocabulary
from ciar.training.drafter import DrafterConfig

Role = Literal["device", "cloud"]

ROLES: dict[str, Role] = {
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


def write_captions(vocabulary: CaptionVocabulary, folder: Path) -> None:
    """captions.json."""
    (folder / "captions.json").write_text(vocabulary.model_dump_json(indent=1) + "\n", encoding="utf-8")


def write_manifest(
    folder: Path,
    shape: TransformerConfig,
    drafter: DrafterConfig,
    roles: Mapping[str, Role] = ROLES,
    *,
    name: str,
    version: str,
    defaults: Defaults,
    uncertainty: NDArray[np.float64],
    ambiguity: NDArray[np.float64],
) -> Manifest:
    """manifest.json over the files with roles, already in the folder; checked by reading it back.

    uncertainty, ambiguity: (n,) U and Ω of held-out positions, whose quantiles a device's gate starts from.
    """
    manifest = Manifest(
        format=1,
        name=name,
        version=version,
        vocab_size=shape.vocab_size,
        grid_height=shape.grid_height,
        grid_width=shape.grid_width,
        caption_length=shape.caption_length,
        feature_dim=shape.feature_dim,
        image_height=4 * shape.grid_height,
        image_width=4 * shape.grid_width,
        drafter_heads=drafter.num_heads,
        drafter_head_dim=drafter.head_dim,
        drafter_neighbours=drafter.neighbours,
        defaults=defaults,
        uncertainty_quantiles=_quantiles(uncertainty),
        ambiguity_quantiles=_quantiles(ambiguity),
        files={
            file: FileEntry(role=role, sha256=sha256_of(folder / file), size_bytes=(folder / file).stat().st_size)
            for file, role in roles.items()
        },
    )
    text = json.dumps(manifest.model_dump(mode="json"), indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return load_manifest(folder)


def _quantiles(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Evenly spaced, 0 to 1: 101 of them."""
    return tuple(float(f"{q:.6g}") for q in np.quantile(values, np.linspace(0, 1, 101)))
