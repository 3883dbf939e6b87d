"""Figures of a row: many pictures of one method on one profile, against the base of the same run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ciar.benchmarks.measurement import Measurement
from ciar.benchmarks.methods import BASE, STRONGEST
from ciar.benchmarks.profiles import FLOOR

EXACT = (STRONGEST, "lossless")
"""Methods whose picture is the cloud's own, whatever number or setting follows the name."""


@dataclass(frozen=True)
class Spread:
    """A figure over pictures."""

    p50: float
    p25: float
    p75: float
    p95: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Quantiles by linear interpolation; with few pictures p95 is close to the largest."""
        array = np.array(list(values), np.float64)
        p25, p50, p75, p95 = np.quantile(array, (0.25, 0.5, 0.75, 0.95)).tolist()
        return cls(p50, p25, p75, p95, float(array.min()), float(array.max()))


@dataclass(frozen=True)
class Row:
    """Shares are of the T tokens of a picture; what has no other word is a mean over pictures."""

    profile: str
    method: str
    num_pictures: int
    seconds: Spread
    speed_up: Spread | None
    """The base's seconds over this method's, picture by picture; None without a base."""
    over_strongest: Spread | None
    """The strongest opponent's seconds over this method's: the cloud alone, without a device; None if not measured."""
    preview_s: float
    """Median."""
    network_s: float
    cloud_s: float
    drafting_s: float
    messages_s: float
    bookkeeping_s: float
    pixels_s: float
    other_s: float
    """Messages, bookkeeping, pixels and setting up."""
    residual_s: float
    """Seconds that no part explains."""
    cloud_compute_s: float
    cloud_compute_ratio: float | None
    """To the base's."""
    num_passes: float
    """Model passes of the cloud."""
    num_rows: float
    """Input rows of one sequence, in all of them."""
    requests_share: float
    verified_share: float
    """Tokens of the picture that the cloud verified behind a draft."""
    local_share: float
    num_rejections: float
    num_forks: float
    num_discarded: float
    num_resumptions: int
    """In all pictures."""
    num_near_ties: float
    bytes_up: float
    bytes_down: float
    bytes_per_token: float
    """Both ways."""
    agreement: float | None
    """Share of positions with the base's token."""
    overlap_s: float
    """Median time of perfect overlap: max(device's own work, cloud's passes)."""
    over_overlap: float
    """Median of seconds over the time of perfect overlap."""
    over_floor: float | None
    """Median seconds over this method's floor; None if that was not measured."""

    @property
    def residual_share(self) -> float:
        """What no part explains, in shares of the time; below 0 if parts overlap."""
        return self.residual_s / (self.residual_s + self.network_s + self.cloud_s + self.drafting_s + self.other_s)

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types, to six digits."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def floors_s(measurements: Sequence[Measurement]) -> dict[str, float]:
    """Median seconds of each method with every draft accepted and no network: its floor, as far as it was measured."""
    seconds: dict[str, list[float]] = {}
    for m in measurements:
        if m.profile == FLOOR.name:
            seconds.setdefault(m.method, []).append(m.seconds)
    return {method: statistics.median(values) for method, values in seconds.items()}


def rows_of(measurements: Sequence[Measurement]) -> list[Row]:
    """A row for each profile and method, in order of their first measurement's profile and of the names given."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault((measurement.profile, measurement.method), []).append(measurement)
    base = _by_picture(measurements, BASE)
    strongest = _by_picture(measurements, STRONGEST)
    floors = floors_s(measurements)
    return [_row(group, base, strongest, floors.get(method)) for (_, method), group in groups.items()]


def _by_picture(measurements: Sequence[Measurement], method: str) -> dict[Any, Measurement]:
    return {m.task._replace(method=""): m for m in measurements if m.method == method}


def _pairs(group: Sequence[Measurement], others: dict[Any, Measurement]) -> list[tuple[Measurement, Measurement]]:
    return [(others[key], m) for m in group if (key := m.task._replace(method="")) in others]


def _row(
    group: Sequence[Measurement],
    base: dict[Any, Measurement],
    strongest: dict[Any, Measurement],
    floor: float | None,
) -> Row:
    pairs, opponents = _pairs(group, base), _pairs(group, strongest)
    num_tokens = len(group[0].tokens)
    seconds = Spread.of(m.seconds for m in group)

    def mean(name: str) -> float:
        return statistics.fmean(getattr(m, name) for m in group)

    compute_ratio = [m.cloud_compute_s / b.cloud_compute_s for b, m in pairs if b.cloud_compute_s]
    return Row(
        profile=group[0].profile,
        method=group[0].method,
        num_pictures=len(group),
        seconds=seconds,
        speed_up=Spread.of(b.seconds / m.seconds for b, m in pairs) if pairs else None,
        over_strongest=Spread.of(o.seconds / m.seconds for o, m in opponents) if opponents else None,
        preview_s=statistics.median(m.preview_s for m in group),
        network_s=mean("network_s"),
        cloud_s=mean("cloud_s"),
        drafting_s=mean("drafting_s"),
        messages_s=mean("messages_s"),
        bookkeeping_s=mean("bookkeeping_s"),
        pixels_s=mean("pixels_s"),
        other_s=mean("other_s"),
        residual_s=mean("residual_s"),
        cloud_compute_s=mean("cloud_compute_s"),
        cloud_compute_ratio=statistics.median(compute_ratio) if compute_ratio else None,
        num_passes=mean("num_passes"),
        num_rows=mean("num_rows"),
        requests_share=mean("num_requests") / num_tokens,
        verified_share=mean("num_verified") / num_tokens,
        local_share=mean("num_local") / num_tokens,
        num_rejections=mean("num_rejections"),
        num_forks=mean("num_forks"),
        num_discarded=mean("num_discarded"),
        num_resumptions=sum(m.num_resumptions for m in group),
        num_near_ties=mean("num_near_ties"),
        bytes_up=mean("bytes_up"),
        bytes_down=mean("bytes_down"),
        bytes_per_token=(mean("bytes_up") + mean("bytes_down")) / num_tokens,
        agreement=statistics.fmean(_agreement(b, m) for b, m in pairs) if pairs else None,
        overlap_s=statistics.median(m.overlap_s for m in group),
        over_overlap=statistics.median(m.seconds / m.overlap_s for m in group),
        over_floor=None if floor is None else seconds.p50 / floor,
    )


def _agreement(base: Measurement, other: Measurement) -> float:
    return sum(a == b for a, b in zip(base.tokens, other.tokens, strict=True)) / len(base.tokens)


def unexplained(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Pictures of exact methods that differ from the cloud's own, no near tie on either side: there must be none."""
    base = _by_picture(measurements, BASE)
    return [
        m
        for m in measurements
        if m.method.partition(":")[0].partition(",")[0] in EXACT
        and (own := base.get(m.task._replace(method=""))) is not None
        and own.tokens != m.tokens
        and not (own.num_near_ties or m.num_near_ties)
    ]
