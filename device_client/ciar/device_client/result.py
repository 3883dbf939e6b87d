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
    """The cloud verifies every token: its own picture, in fewer passes. Under the rule "classic" it is not its own any
    more, but of its law; under LANTERN neither."""
    CLOUD = "cloud"
    """The cloud draws alone: the baseline."""
    DEVICE = "device"
    """The cloud writes the prefix, the device all the rest."""


class Decision(StrEnum):
    """Who decided a token."""

    PREFIX = "prefix"
    """The cloud, before the device began."""
    LOCAL = "local"
    """The device alone."""
    CONFIRMED = "confirmed"
    """The device drafted it, the cloud would have drawn the same."""
    CORRECTED = "corrected"
    """The cloud, in place of the device's draft."""
    CLOUD = "cloud"
    """The cloud, drawing alone."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What crossed the network for one picture."""

    num_requests: int = 0
    """Questions sent: drafts, stale ones too; in cloud mode the one request."""
    num_asked: int = 0
    """Tokens asked about, those of stale drafts too."""
    num_corrections: int = 0
    num_discarded: int = 0
    """Tokens drafted and dropped, because a correction or a lost connection came before them."""
    num_resumptions: int = 0
    """Times the session was taken up again after a failure."""
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
    """Drafter and drawing."""
    decoding_s: float = 0.0
    """Tokens to pixels."""

    @property
    def other_s(self) -> float:
        """Gate, bookkeeping, encoding of messages."""
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
    acceptance: str = "coupled"
    """The rule by which the cloud judged what it was asked about; "none" if nothing could be."""
    traffic: Traffic = field(default_factory=Traffic)
    timings: Timings = field(default_factory=Timings)
    cost: Cost = field(default_factory=Cost)
    """What the cloud says that it spent."""

    @property
    def cloud_share(self) -> float:
        """Share of the tokens that the cloud drew or verified, the prefix included."""
        return 1 - self.decisions.count(Decision.LOCAL) / len(self.decisions)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, in JSON's types; units end the names."""
        return {
            "mode": self.mode.value,
            "gate": self.gate,
            "acceptance": self.acceptance,
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
