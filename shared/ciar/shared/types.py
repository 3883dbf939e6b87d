"""The values that travel between device and cloud, independent of how they are written on the wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Tokens = NDArray[np.int64]
Mask = NDArray[np.bool_]
Features = NDArray[np.float16]
Laws = NDArray[np.float16]


class Sampling(BaseModel):
    """How tokens are drawn; equal on both sides of a session."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = Field(default=0, ge=0, lt=2**64)
    """One seed, one picture."""
    temperature: float = Field(default=1.0, ge=0, le=10)
    """0 is greedy."""
    top_k: int = Field(default=0, ge=0, lt=2**32)
    """0 keeps all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """1 keeps all."""
    guidance: float = Field(default=1.0, ge=1, le=20)
    """Classifier-free guidance s of the cloud, u + s·(c − u); 1 is none."""


@dataclass(frozen=True, slots=True)
class Coupled:
    """A drafted token stands if the cloud draws it too, with the common noise: the cloud's own picture."""

    needs_laws: ClassVar[bool] = False
    """Whether the cloud must be told the device's law at every asked position."""

    def __str__(self) -> str:
        return "coupled"


@dataclass(frozen=True, slots=True)
class Classic:
    """Speculative sampling with min(1, p/q) and a residual: the cloud's law, another picture."""

    needs_laws: ClassVar[bool] = True

    def __str__(self) -> str:
        return "classic"


@dataclass(frozen=True, slots=True)
class Lantern:
    """LANTERN's relaxation of the classic rule: neither the cloud's picture nor its law."""

    num_neighbours: int
    """k: so many nearest codes may lend a drafted one their probability."""
    max_mass: float
    """δ in [0, 1]: at most this much is lent."""
    needs_laws: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"lantern:{self.num_neighbours}:{self.max_mass:g}"


Acceptance = Coupled | Classic | Lantern
"""How the cloud judges the tokens that it is asked about; the rules themselves are in `acceptance`."""

COUPLED = Coupled()


@dataclass(frozen=True, slots=True)
class Cost:
    """What replies cost the cloud; adds up."""

    forward_ns: int = 0
    """Wall time of the model passes taken part in; a shared pass counts whole for each session."""
    queue_ns: int = 0
    """Time between arrival and the start of the pass."""
    num_passes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.forward_ns + other.forward_ns,
            self.queue_ns + other.queue_ns,
            self.num_passes + other.num_passes,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A run of consecutive tokens, some asked about, some decided by the device and described by a feature."""

    start: int
    """Absolute position of the first token."""
    tokens: Tokens
    """(n,)"""
    asked: Mask
    """(n,) True: the cloud shall verify this token."""
    featured: Mask
    """(n,) True: a row of `features` belongs to this token; never where `asked`."""
    features: Features
    """(number of featured tokens, r) interval features."""
    laws: Laws | None = None
    """(number of asked tokens, V) the device's logits before temperature and cuts, or None for a rule without need."""

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.start + len(self.tokens)

    @classmethod
    def empty(cls, feature_dim: int) -> Block:
        none = np.zeros(0, np.bool_)
        return cls(0, np.zeros(0, np.int64), none, none, np.zeros((0, feature_dim), np.float16))


@dataclass(frozen=True, slots=True)
class Open:
    """First frame: what is to be drawn, by which pair, and what is already decided."""

    prompt: str
    sampling: Sampling
    num_prefix_tokens: int
    file_digests: dict[str, str]
    history: Block
    acceptance: Acceptance = COUPLED
    carry_on: bool = False
    """Whether the cloud goes on behind a correction with what was drafted there; then the device begins epochs."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A block of an epoch."""

    epoch: int
    block: Block


@dataclass(frozen=True, slots=True, eq=False)
class TreeDraft:
    """Several ways in which the picture may go on after what is decided, of an epoch."""

    epoch: int
    start: int
    """Absolute position of the first level."""
    tokens: Tokens
    """(N,) parents before children."""
    parents: Tokens
    """(N,) index of each node's parent, −1 for the first level."""


@dataclass(frozen=True, slots=True)
class Finish:
    """No more drafts."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The session stands; `condition` (C,) are the caption's phrase ids."""

    session_id: str
    condition: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """Tokens the cloud wrote alone: a prefix, or a part of a cloud-only picture."""

    start: int
    tokens: tuple[int, ...]
    near_ties: tuple[int, ...] = ()
    """Positions whose winner led by less than the near-tie tolerance."""
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, slots=True)
class Correction:
    """The cloud's own tokens from an asked position on; unless the cloud carries on, a new epoch begins after them."""

    position: int
    tokens: tuple[int, ...]
    next_epoch: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one draft."""

    epoch: int
    verified_through: int
    """Every token before this position is decided."""
    correction: Correction | None = None
    stale: bool = False
    near_ties: tuple[int, ...] = ()
    cost: Cost = field(default_factory=Cost)
    partial: bool = False
    """More verdicts on this draft will follow."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The cloud's account of a session."""

    cost: Cost = field(default_factory=Cost)
    num_prefix_tokens: int = 0
    num_drafts: int = 0
    num_stale_drafts: int = 0
    num_asked: int = 0
    num_corrections: int = 0


DeviceFrame = Open | Draft | TreeDraft | Finish
CloudFrame = Opened | Written | Verdict | Summary


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server bears; told in its model info."""

    max_block_tokens: int = 64
    max_in_flight: int = 16
    idle_timeout_ms: int = 30_000
    max_prompt_bytes: int = 1024
