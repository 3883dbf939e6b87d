"""A bundle: a trained pair in a folder, described by its manifest.

The manifest binds drafter, decoder and cloud model by SHA-256, and holds what both sides need to know of the pair.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ciar.shared.errors import InvalidRequest, PairMismatch
from ciar.shared.grid import NEAREST, Offset

MANIFEST = "manifest.json"


class FileEntry(BaseModel):
    """One file of a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["device", "cloud"]
    """Who loads it; only device files are served."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(gt=0)


class Defaults(BaseModel):
    """Settings that measured best for this pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    guidance: float = Field(default=1.0, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    prefix_rate: float = Field(default=0.06, ge=0, le=1)
    """ρ: share of the tokens that the cloud writes first."""
    gate: str = "quantile"
    verify_share: float = Field(default=0.3, ge=0, le=1)
    """Share of the drafted tokens that is verified, of held-out captions."""


class Manifest(BaseModel):
    """manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    name: str
    version: str
    vocab_size: int = Field(gt=1)
    grid_height: int = Field(gt=0)
    grid_width: int = Field(gt=0)
    caption_length: int = Field(gt=0)
    feature_dim: int = Field(ge=0)
    image_height: int = Field(gt=0)
    image_width: int = Field(gt=0)
    drafter_heads: int = Field(gt=0)
    drafter_head_dim: int = Field(gt=0)
    drafter_neighbours: tuple[Offset, ...] = Field(default=NEAREST, min_length=1)
    """(rows up, columns to the right) of the known tokens that the drafter reads at every position."""
    defaults: Defaults = Defaults()
    uncertainty_quantiles: tuple[float, ...] = Field(min_length=2)
    """Evenly spaced quantiles, 0 to 1, of U on held-out captions: where a running quantile begins."""
    ambiguity_quantiles: tuple[float, ...] = Field(min_length=2)
    """The same of Ω."""
    files: dict[str, FileEntry]

    @property
    def num_tokens(self) -> int:
        """Number T of tokens in a picture."""
        return self.grid_height * self.grid_width

    @property
    def drafter_cache_shape(self) -> tuple[int, int, int, int]:
        """Shape (1, H, T, D) of the drafter's keys, and of its values."""
        return 1, self.drafter_heads, self.num_tokens, self.drafter_head_dim

    def device_files(self) -> dict[str, FileEntry]:
        """What a device must hold."""
        return {name: entry for name, entry in self.files.items() if entry.role == "device"}

    def device_digests(self) -> dict[str, str]:
        """SHA-256 of each device file."""
        return {name: entry.sha256 for name, entry in self.device_files().items()}


def embedded_bundle() -> Path:
    """Folder of the pair that comes with the cloud's distribution. Raises InvalidRequest if that is not installed."""
    try:
        return Path(str(importlib.resources.files("ciar.bundles") / "icons"))
    except ModuleNotFoundError as exc:
        raise InvalidRequest("bundle: none given, none installed; give a folder, or pip install ciar-cloud") from exc


def sha256_of(path: Path) -> str:
    """Lower-case hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(manifest_json: str) -> str:
    """A bundle's digest: lower-case hex SHA-256 of its manifest, which holds those of all files."""
    return hashlib.sha256(manifest_json.encode()).hexdigest()


def parse_manifest(text: str, source: str) -> Manifest:
    """A manifest from its JSON. Raises InvalidRequest that names the source and the field."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as exc:
        problem = exc.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "document"
        raise InvalidRequest(f"{source}: {field}: {problem['msg']}") from exc


def load_manifest(folder: Path, *, check_files: bool = True) -> Manifest:
    """The manifest of a bundle folder, its files checked for presence, size and digest.

    Raises InvalidRequest if there is no readable manifest, PairMismatch if a file is missing or differs.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InvalidRequest(f"bundle: no {MANIFEST} in {folder}; give the folder of a bundle")
    manifest = parse_manifest(path.read_text(encoding="utf-8"), str(path))
    for name, entry in manifest.files.items() if check_files else ():
        file = folder / name
        if not file.is_file():
            raise PairMismatch(f"bundle: {file} is missing")
        if file.stat().st_size != entry.size_bytes or sha256_of(file) != entry.sha256:
            raise PairMismatch(f"bundle: {file} is not the file that the manifest names (size or SHA-256 differs)")
    return manifest
