"""The values that travel between device and cloud, independent of how they are written on the wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Tokens = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Sampling(BaseModel):
    """How tokens are sampled; equal on both sides of a session."""

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
class Cost:
    """What replies cost the cloud; adds up."""

    forward_ns: int = 0
    """Wall time of the model passes taken part in; a shared pass counts whole for each session."""
    queue_ns: int = 0
    """Time between being ready for a pass and its start."""
    num_passes: int = 0
    num_rows: int = 0
    """Input rows of one sequence, in all passes."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.forward_ns + other.forward_ns,
            self.queue_ns + other.queue_ns,
            self.num_passes + other.num_passes,
            self.num_rows + other.num_rows,
        )


class Verify(Enum):
    """Which tokens the cloud verifies."""

    ALL = 1
    """The picture is the cloud's own; drafts are first guesses, and the cloud goes on by itself."""
    MARKED = 2
    """Those that drafts mark; the device decides the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Open:
    """First frame: what is to be generated, by which bundle, and what is final already."""

    prompt: str
    sampling: Sampling
    bundle_digest: str
    verify: Verify
    num_prefix_tokens: int
    max_window: int
    """Most positions verified in one pass; 0 leaves it to the server."""
    history: Tokens
    """(h,) final tokens from position 0 on."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The session stands; `condition` (C,) are the caption's phrase ids."""

    session_id: str
    condition: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """Replaces all that the cloud holds from `start` on."""

    seq: int
    """1, 2, … in a stream."""
    start: int
    tokens: Tokens
    """(n,)"""
    to_verify: Mask
    """(n,) True: the cloud shall verify this token."""
    num_verdicts: int = 0
    """Verdicts received so far."""

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pass found at the positions to be verified from `start` on."""

    applied_seq: int
    """The last Draft applied; the Verdict holds below the least start of later ones."""
    start: int
    tokens: tuple[int, ...]
    """The cloud's samples, one for each position to be verified."""
    num_verified: int
    """The first so many are verified, the others new guesses."""
    near_ties: tuple[int, ...] = ()
    """Verified positions whose winner led by less than the near-tie tolerance."""
    cost: Cost = field(default_factory=Cost)
    waiting: bool = False
    """The cloud waits for a Draft that counts this Verdict."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The device has all its tokens."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The cloud's account of a picture."""

    cost: Cost = field(default_factory=Cost)
    num_drafts: int = 0
    num_forks: int = 0
    """Drafts that replaced something."""
    num_verified: int = 0
    num_rejections: int = 0


DeviceFrame = Open | Draft | Finish
CloudFrame = Opened | Verdict | Summary


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server bears; told in its model info."""

    max_window: int = 64
    max_in_flight: int = 64
    idle_timeout_ms: int = 30_000
    max_prompt_bytes: int = 1024
