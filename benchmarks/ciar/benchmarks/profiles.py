"""Networks as data: toxics by direction, in the vocabulary of toxiproxy, and the named profiles made of them.

A *toxic* is one thing that a network does to bytes of one direction: `up` is device to cloud, `down` cloud to device.
Latencies are one way; a profile's round trip is the sum of both directions. Jitter is uniform, ± around the latency,
and never changes the order of bytes. Nothing here opens a socket.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ciar.shared.errors import InvalidRequest


class _Toxic(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Latency(_Toxic):
    """Every byte arrives later."""

    kind: Literal["latency"] = "latency"
    latency_ms: float = Field(ge=0)
    """One way."""
    jitter_ms: float = Field(default=0, ge=0)
    """Uniform in latency ± jitter, drawn anew for every chunk; a chunk never overtakes the one before."""


class Bandwidth(_Toxic):
    """A token bucket that all connections of the direction share."""

    kind: Literal["bandwidth"] = "bandwidth"
    rate_kbit_s: float = Field(gt=0)
    """1000 bits a second."""
    burst_bytes: int = Field(default=0, ge=0)
    """So many bytes pass at once after a pause. 0: a plain link, each byte takes its time."""


class Stall(_Toxic):
    """Nothing passes for a while, then everything that has queued."""

    kind: Literal["stall"] = "stall"
    after_ms: float = Field(ge=0)
    """Since the connection was opened."""
    for_ms: float = Field(gt=0)


class Reset(_Toxic):
    """The connection is torn down with RST in both directions."""

    kind: Literal["reset"] = "reset"
    after_bytes: int = Field(ge=0)
    """So many bytes of this direction pass before."""
    num_connections: int = Field(default=1, ge=0)
    """So many of the first connections are struck; 0: all."""


Toxic = Annotated[Latency | Bandwidth | Stall | Reset, Field(discriminator="kind")]


class Profile(_Toxic):
    """A network between device and cloud."""

    name: str
    up: tuple[Toxic, ...] = ()
    down: tuple[Toxic, ...] = ()
    source: str = "given by hand"
    """Where the numbers come from; "nominal" means a round figure for the kind of network, not a measurement."""

    @property
    def rtt_ms(self) -> float:
        """Mean round trip that the toxics add; a chunk's own transmission time comes on top."""
        return sum(toxic.latency_ms for toxic in (*self.up, *self.down) if isinstance(toxic, Latency))

    @property
    def is_direct(self) -> bool:
        """Whether there is nothing to relay."""
        return not (self.up or self.down)

    def describe(self) -> str:
        """The profile in a few words."""
        if self.is_direct:
            return "direct connection, no relay"
        return f"{self.rtt_ms:g} ms round trip; up {_describe(self.up)}; down {_describe(self.down)}"


def _describe(toxics: tuple[Toxic, ...]) -> str:
    words = []
    for toxic in toxics:
        match toxic:
            case Latency():
                jitter = f" ± {toxic.jitter_ms:g}" if toxic.jitter_ms else ""
                words.append(f"{toxic.latency_ms:g}{jitter} ms")
            case Bandwidth():
                words.append(f"{toxic.rate_kbit_s / 1000:g} Mbit/s")
            case Stall():
                words.append(f"stall of {toxic.for_ms:g} ms after {toxic.after_ms:g} ms")
            case Reset():
                words.append(f"reset after {toxic.after_bytes} bytes")
    return ", ".join(words) or "nothing"


def _link(one_way_ms: float, jitter_ms: float, rate_mbit_s: float) -> tuple[Toxic, ...]:
    return (Latency(latency_ms=one_way_ms, jitter_ms=jitter_ms), Bandwidth(rate_kbit_s=1000 * rate_mbit_s))


_OFCOM_RATES = "Ofcom, Mobile Matters 2023 (UK averages, October 2022 to March 2023, crowdsourced)"

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(name="loopback", source="none: device and cloud talk over the machine's loopback"),
        Profile(
            name="lan",
            up=_link(0.5, 0, 1000),
            down=_link(0.5, 0, 1000),
            source="nominal: switched gigabit Ethernet with a server in the next room",
        ),
        Profile(
            name="wifi",
            up=_link(2.5, 1, 50),
            down=_link(2.5, 1, 100),
            source="nominal: an access point at home or in an office, a server close by",
        ),
        Profile(
            name="5g",
            up=_link(10, 2, 14.7),
            down=_link(10, 2, 129.9),
            source=f"rates: {_OFCOM_RATES}, 5G; round trip: nominal, inside the 16.3 to 21.4 ms of the operators in "
            "Ofcom, Mobile Matters 2024; jitter: nominal",
        ),
        Profile(
            name="4g",
            up=_link(25, 5, 7.6),
            down=_link(25, 5, 29.5),
            source=f"rates: {_OFCOM_RATES}, 4G; round trip: near the 53.1 ms of Ofcom's 4G measurements of late 2014 "
            "(its Mobile Matters 2024 has 18.3 to 23.7 ms, so this is an old or a far network); jitter: nominal",
        ),
        Profile(
            name="bad-4g",
            up=_link(60, 20, 0.75),
            down=_link(60, 20, 1.6),
            source='rates: the "Slow 4G" preset of Lighthouse (about the slowest quarter of 4G connections; its round '
            "trip is 150 ms); round trip and jitter: nominal",
        ),
    )
}
"""By name, from near to far."""

FLOOR = Profile(name="floor", source="none: every question is confirmed in this process while it is asked")
"""Not a network: where every draft is accepted and nothing is waited for (see `accepting`)."""


def find_profile(name: str) -> Profile:
    """A profile by name, or one given as JSON. Raises InvalidRequest that names the nearest known ones."""
    if name.lstrip().startswith("{"):
        try:
            profile = Profile.model_validate_json(name)
        except ValidationError as exc:
            problem = exc.errors()[0]
            field = ".".join(map(str, problem["loc"])) or "document"
            raise InvalidRequest(f"profile: {field}: {problem['msg']}") from exc
        if profile.name == FLOOR.name:
            raise InvalidRequest(f"profile: name: {FLOOR.name!r} is what the limit without a network is called")
        return profile
    if name not in PROFILES:
        nearest = difflib.get_close_matches(name.lower(), PROFILES, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(PROFILES)}"
        raise InvalidRequest(f"profile: unknown profile {name!r}; {hint}")
    return PROFILES[name]
