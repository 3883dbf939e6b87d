"""The configuration of a whole training run: one TOML file, read once, validated field by field.

Flows in: a path. Flows out: `RunConfig` and the paths of a run's folder.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ciar.cloud_server.transformer import TransformerConfig
from ciar.training.captions import CaptionConfig
from ciar.training.cloud_training import CloudTrainingConfig
from ciar.training.curation import CurationConfig
from ciar.training.dataset import SplitConfig
from ciar.training.drafter import DrafterConfig
from ciar.training.drafter_training import DrafterTrainingConfig
from ciar.training.feature_training import FeatureTrainingConfig
from ciar.training.laws import LawsConfig
from ciar.training.radius_comparison import RadiusConfig
from ciar.training.tokenizer import TokenizerConfig
from ciar.training.tokenizer_training import TokenizerTrainingConfig


class ConfigError(Exception):
    """The configuration file is missing or wrong; the message names the field."""


class CreditConfig(BaseModel):
    """Whom to name for a folder of images; it goes into credits.json and the model card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    """By default the folder's name."""
    author: str = "not stated"
    author_url: str = ""
    licence: str = "not stated"
    licence_url: str = ""


class DataConfig(BaseModel):
    """Where the data come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["iconify", "drawn", "folder", "emoji", "scenes"] = "iconify"
    """`iconify`: the npm collection; `drawn`: a few shapes drawn by code, for smoke runs; `folder`: your own images
    with captions; `emoji`: npm packages of emoji; `scenes`: landscapes painted by code."""
    num_pictures: int = Field(default=80_000, gt=0)
    """For `scenes`."""
    seed: int = 0
    """For `scenes`."""
    folder: Path | None = None
    """For `folder`: images, with metadata.jsonl or a text file beside each."""
    credit: CreditConfig = CreditConfig()
    """For `folder`."""
    packages: tuple[Path, ...] = ()
    """For `emoji`: what `npm pack` writes."""
    tarball: Path = Path("runs/iconify-json.tgz")
    """What `npm pack @iconify/json` writes."""
    concepts: Path = Path("training/concepts.toml")
    ink_size: int = Field(default=48, gt=0, le=64)
    """Pixels of the longer side of a drawing's ink."""
    split: SplitConfig = SplitConfig()

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.source == "folder" and self.folder is None:
            raise ValueError("folder: name the folder of your images")
        return self


class CloudShape(BaseModel):
    """Size of the cloud model; the rest of its shape follows from the tokenizer and the captions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 640
    feature_dim: int = 16
    """Rank r of the interval feature."""

    def complete(self, tokenizer: TokenizerConfig, num_phrases: int, caption_length: int) -> TransformerConfig:
        """The full configuration of the model."""
        return TransformerConfig(
            **self.model_dump(),
            vocab_size=tokenizer.vocab_size,
            grid_height=tokenizer.grid,
            grid_width=tokenizer.grid,
            num_phrases=num_phrases,
            caption_length=caption_length,
            conditioning="phrases",
            prefix_rope="identity",
            condition_everywhere=True,
        )


class ExportConfig(BaseModel):
    """What is written into the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "icons"
    version: str = "1"
    guidance: float = Field(default=1.5, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    prefix_rate: float = Field(default=0.06, ge=0, le=1)
    gate: str = "quantile"
    verify_share: float = Field(default=0.2, ge=0, le=1)
    quantize: bool = True
    """Export the drafter with dynamic int8 weights."""


class RunConfig(BaseModel):
    """Everything that decides what a run produces."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    num_threads: int = Field(default=2, gt=0)
    device: Literal["cpu", "cuda"] = "cpu"
    """Where tokenizer and cloud model are trained, and where the cloud model writes."""
    data: DataConfig = DataConfig()
    curation: CurationConfig = CurationConfig()
    captions: CaptionConfig = CaptionConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    tokenizer_training: TokenizerTrainingConfig = TokenizerTrainingConfig()
    bundle: Path | None = None
    """A bundle whose cloud model, words and picture decoder are taken as they are: its drafter is trained anew, and the
    steps `data`, `tokenizer` and `cloud` are left out."""
    cloud: CloudShape = CloudShape()
    cloud_training: CloudTrainingConfig = CloudTrainingConfig()
    laws: LawsConfig = LawsConfig()
    drafter: DrafterConfig = DrafterConfig()
    drafter_training: DrafterTrainingConfig = DrafterTrainingConfig()
    radius: RadiusConfig = RadiusConfig()
    feature_training: FeatureTrainingConfig = FeatureTrainingConfig()
    export: ExportConfig = ExportConfig()


@dataclass(frozen=True)
class RunPaths:
    """The folder of a run."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer.pt"

    @property
    def tokens(self) -> Path:
        return self.root / "tokens.pt"

    @property
    def tokenizer_run(self) -> Path:
        return self.root / "tokenizer"

    @property
    def refine_run(self) -> Path:
        return self.root / "refine"

    @property
    def cloud(self) -> Path:
        return self.root / "cloud"

    @property
    def laws(self) -> Path:
        return self.root / "laws"

    @property
    def drafter_run(self) -> Path:
        return self.root / "drafter"

    @property
    def drafter(self) -> Path:
        return self.root / "drafter.pt"

    @property
    def features(self) -> Path:
        return self.root / "features.pt"


def load_config(path: Path) -> RunConfig:
    """Read a configuration. Raises ConfigError that names the file and the field."""
    try:
        with path.open("rb") as file:
            return RunConfig(**tomllib.load(file))
    except FileNotFoundError as exc:
        raise ConfigError(f"{path} does not exist") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from exc
