"""What a picture comes back with: pixels, tokens, who decided each of them, and what it cost."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from PIL import Image

from ciar.shared.types import Cost


class Mode(StrEnum):
    """How the work is shared."""

    CIAR = "ciar"
    """A gate decides which tokens the cloud verifies."""
    LOSSLESS = "lossless"
    """The cloud verifies every token, the device's drafts are its first guesses: the cloud's own picture."""
    CLOUD = "cloud"
    """The cloud alone, with guesses of its own: the same picture."""
    DEVICE = "device"
    """The cloud generates the prefix, the device all the rest."""


class Decision(StrEnum):
    """Who decided a token."""

    PREFIX = "prefix"
    """The cloud, before the device began."""
    LOCAL = "local"
    """The device alone."""
    ACCEPTED = "accepted"
    """The cloud verified it, and sampled what the device had drafted."""
    RESAMPLED = "resampled"
    """The cloud verified it, and sampled another token than the device had drafted."""
    CLOUD = "cloud"
    """The cloud, without a draft."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What crossed the network for one picture."""

    num_requests: int = 0
    """Drafts sent; in cloud mode the one request."""
    num_verdicts: int = 0
    num_sent_to_verify: int = 0
    """Tokens sent to be verified, those of discarded drafts too."""
    num_forks: int = 0
    """Drafts that replaced what the cloud held."""
    num_discarded: int = 0
    """Tokens sent and replaced, by a fork or after a lost connection."""
    num_resumptions: int = 0
    """Times the picture was taken up again after a failure."""
    bytes_up: int = 0
    """Serialized messages, without HTTP/2 and TLS."""
    bytes_down: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one picture went."""

    total_s: float = 0.0
    setup_s: float = 0.0
    """Until the first frame is sent: the first picture of a client fetches and loads its files here."""
    prefix_s: float = 0.0
    """From the first frame to the end of the prefix, waiting included."""
    waiting_s: float = 0.0
    """Blocked on network and cloud, in all."""
    drafting_s: float = 0.0
    """Drafter, sampling and gate."""
    decoding_s: float = 0.0
    """Tokens to pixels."""

    @property
    def other_s(self) -> float:
        """Bookkeeping, encoding of messages."""
        return max(0.0, self.total_s - self.setup_s - self.waiting_s - self.drafting_s - self.decoding_s)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One picture."""

    image: Image.Image
    """RGB."""
    tokens: tuple[int, ...]
    """(T,) in raster order."""
    decisions: tuple[Decision, ...]
    """(T,)"""
    uncertainty: tuple[float | None, ...]
    """(T,) U of the tokens that the device drafted; None for the others."""
    near_ties: tuple[int, ...]
    """Positions the cloud decided by less than the near-tie tolerance."""
    grid_width: int
    """Tokens in a row of the grid."""
    seed: int
    mode: Mode
    gate: str
    """The gate that was used, as `make_gate` reads it."""
    traffic: Traffic = field(default_factory=Traffic)
    timings: Timings = field(default_factory=Timings)
    cost: Cost = field(default_factory=Cost)
    """What the cloud says that it spent."""

    @property
    def cloud_share(self) -> float:
        """Share of the tokens that the cloud generated or verified, the prefix included."""
        return 1 - self.decisions.count(Decision.LOCAL) / len(self.decisions)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, in JSON's types; units end the names."""
        return {
            "mode": self.mode.value,
            "gate": self.gate,
            "seed": self.seed,
            "tokens": list(self.tokens),
            "decisions": [decision.value for decision in self.decisions],
            "uncertainty": list(self.uncertainty),
            "near_ties": list(self.near_ties),
            "cloud_share": self.cloud_share,
            **dataclasses.asdict(self.traffic),
            **dataclasses.asdict(self.timings),
            "other_s": self.timings.other_s,
            "cloud_cost": dataclasses.asdict(self.cost),
        }

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)
