"""One direction of a network: when bytes that enter it come out. Plain arithmetic on a clock that is given.

A link first takes a chunk's transmission time (token bucket), then its propagation delay (latency ± jitter).
"""

from __future__ import annotations

import random

from ciar.benchmarks.profiles import Bandwidth, Latency, Reset, Stall, Toxic

READ_BYTES = 65_536
SLICE_BYTES = 1_500
"""A limited link passes on slices of at least this size: about a packet."""


class TokenBucket:
    """When bytes have passed a link of limited rate."""

    def __init__(self, rate_bytes_s: float, burst_bytes: int = 0) -> None:
        self._rate_bytes_s = rate_bytes_s
        self._burst_s = burst_bytes / rate_bytes_s
        self._free_at = float("-inf")

    def passed_at(self, num_bytes: int, now: float) -> float:
        """The time, in seconds of the clock of `now`, at which the last of these bytes has passed."""
        start = max(self._free_at, now - self._burst_s)
        self._free_at = start + num_bytes / self._rate_bytes_s
        return max(now, self._free_at)


class Link:
    """One direction of the network, shared by all connections."""

    def __init__(self, toxics: tuple[Toxic, ...], seed: int) -> None:
        self._random = random.Random(seed)
        self._latencies = [toxic for toxic in toxics if isinstance(toxic, Latency)]
        limits = [toxic for toxic in toxics if isinstance(toxic, Bandwidth)]
        self._buckets = [TokenBucket(limit.rate_kbit_s * 125, limit.burst_bytes) for limit in limits]
        slowest = min((limit.rate_kbit_s * 125 for limit in limits), default=float("inf"))
        self.slice_bytes = int(min(READ_BYTES, max(SLICE_BYTES, slowest / 1000)))
        self.stalls = [toxic for toxic in toxics if isinstance(toxic, Stall)]
        self.resets = [toxic for toxic in toxics if isinstance(toxic, Reset)]

    def due(self, num_bytes: int, now: float) -> float:
        """When bytes that arrive now come out at the other end, stalls and order aside."""
        for bucket in self._buckets:
            now = bucket.passed_at(num_bytes, now)
        for toxic in self._latencies:
            jitter_ms = self._random.uniform(-toxic.jitter_ms, toxic.jitter_ms)
            now += max(0.0, toxic.latency_ms + jitter_ms) / 1000
        return now
