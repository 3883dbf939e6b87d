"""The relay delays, limits, stalls and resets as told, and otherwise changes nothing.

Lower bounds are exact, since a network never beats its physics; upper bounds only tell a relay that hangs.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciar.benchmarks.link import Link, TokenBucket
from ciar.benchmarks.network import RelayProcess
from ciar.benchmarks.profiles import PROFILES, Bandwidth, Latency, Profile, Reset, Stall, find_profile
from ciar.shared.errors import InvalidRequest

HANGS_S = 20.0


class Echo:
    """A server that sends back what it gets, connection by connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        try:
            with connection:
                while data := connection.recv(65_536):
                    connection.sendall(data)
        except OSError:
            pass


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@contextmanager
def relayed(echo: Echo, profile: Profile) -> Iterator[socket.socket]:
    with RelayProcess(echo.address, profile) as relay, connect(relay.address) as connection:
        yield connection


def connect(address: str) -> socket.socket:
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)), timeout=HANGS_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection: socket.socket, num_bytes: int) -> bytes:
    parts = []
    while num_bytes and (data := connection.recv(min(num_bytes, 65_536))):
        parts.append(data)
        num_bytes -= len(data)
    return b"".join(parts)


def read_until_reset(connection: socket.socket, received: bytearray) -> None:
    """Fill `received` until an error; fails the test if the stream ends in peace."""
    while data := connection.recv(65_536):
        received += data
    raise AssertionError("the connection was closed, not reset")


def round_trip(connection: socket.socket, data: bytes = b"x") -> float:
    """Seconds until `data` is back."""
    began = perf_counter()
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    assert receive(connection, len(data)) == data
    seconds = perf_counter() - began
    sender.join()
    return seconds


def test_latency_is_one_way_and_adds_up_to_the_round_trip(echo: Echo) -> None:
    profile = Profile(name="far", up=(Latency(latency_ms=30),), down=(Latency(latency_ms=50),))
    assert profile.rtt_ms == 80
    with relayed(echo, profile) as connection:
        trips = [round_trip(connection) for _ in range(5)]
    assert min(trips) >= 0.080
    assert min(trips) < 0.080 + 0.2


def test_short_latencies_are_not_rounded_up_to_a_millisecond(echo: Echo) -> None:
    """asyncio's default selector would make 2 ms of this."""
    profile = Profile(name="near", up=(Latency(latency_ms=0.2),), down=(Latency(latency_ms=0.2),))
    with relayed(echo, profile) as connection:
        trips = [round_trip(connection) for _ in range(200)]
    assert 0.0004 <= min(trips) < 0.0018


def test_jitter_spreads_the_latency_and_keeps_the_order(echo: Echo) -> None:
    profile = Profile(name="unsteady", up=(Latency(latency_ms=20, jitter_ms=15),))
    with relayed(echo, profile) as connection:
        trips = [round_trip(connection) for _ in range(20)]
        message = bytes(range(256)) * 40
        for start in range(0, len(message), 100):
            connection.sendall(message[start : start + 100])
        assert receive(connection, len(message)) == message
    assert min(trips) >= 0.005
    assert max(trips) - min(trips) > 0.008  # 20 draws from 30 ms; missed with odds of 1 in 10⁸


@pytest.mark.parametrize("direction", ["up", "down"])
def test_bandwidth_limits_each_direction(echo: Echo, direction: str) -> None:
    limit = {direction: (Bandwidth(rate_kbit_s=4000),)}  # 500 kB/s
    with relayed(echo, Profile(name="narrow", **limit)) as connection:
        seconds = round_trip(connection, bytes(150_000))
    assert 0.3 <= seconds < HANGS_S


def test_a_link_is_shared_by_its_connections(echo: Echo) -> None:
    profile = Profile(name="narrow", up=(Bandwidth(rate_kbit_s=4000),))
    with RelayProcess(echo.address, profile) as relay:
        began = perf_counter()
        with connect(relay.address) as one, connect(relay.address) as other:
            both = [threading.Thread(target=round_trip, args=(c, bytes(75_000))) for c in (one, other)]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()
    assert perf_counter() - began >= 0.3


def test_a_stall_holds_everything_and_then_lets_it_pass(echo: Echo) -> None:
    with relayed(echo, Profile(name="tunnel", down=(Stall(after_ms=0, for_ms=400),))) as connection:
        began = perf_counter()
        connection.sendall(b"abc")
        assert receive(connection, 3) == b"abc"
        assert 0.35 <= perf_counter() - began < HANGS_S  # it counts from the relay's accept, a little earlier
        assert round_trip(connection) < 0.3


def test_a_reset_strikes_after_its_bytes_and_only_the_first_connections(echo: Echo) -> None:
    profile = Profile(name="broken", up=(Reset(after_bytes=1000),))
    with RelayProcess(echo.address, profile) as relay:
        with connect(relay.address) as connection:
            connection.sendall(bytes(5000))
            received = bytearray()
            with pytest.raises(ConnectionError):
                read_until_reset(connection, received)
            assert len(received) <= 1000
        with connect(relay.address) as connection:
            assert round_trip(connection, bytes(5000)) > 0


def test_the_end_of_a_side_is_passed_on_after_its_bytes(echo: Echo) -> None:
    profile = Profile(name="far", up=(Latency(latency_ms=20),), down=(Latency(latency_ms=20),))
    with relayed(echo, profile) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        assert receive(connection, 1000) == b"last words"


def test_no_target_is_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = "{}:{}".format(*taken.getsockname())
    with (
        RelayProcess(nobody, PROFILES["lan"]) as relay,
        connect(relay.address) as connection,
        pytest.raises(ConnectionError),
    ):
        connection.recv(1)


@pytest.fixture(scope="module")
def rough(echo: Echo) -> Iterator[str]:
    """Address of a relay that cuts, delays and jitters."""
    toxics = (Latency(latency_ms=1, jitter_ms=1), Bandwidth(rate_kbit_s=200_000, burst_bytes=2000))
    with RelayProcess(echo.address, Profile(name="rough", up=toxics, down=toxics)) as relay:
        yield relay.address


@settings(max_examples=25, deadline=None)
@given(parts=st.lists(st.binary(min_size=1, max_size=5000), min_size=1, max_size=12))
def test_bytes_arrive_whole_and_in_order_both_ways(rough: str, parts: list[bytes]) -> None:
    with connect(rough) as connection:
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        assert receive(connection, sum(map(len, parts)) + 1) == b"".join(parts)


@given(
    sizes=st.lists(st.integers(1, 10_000), min_size=1, max_size=30),
    gaps=st.lists(st.floats(0, 1), min_size=30, max_size=30),
    rate=st.floats(100, 1e6),
    burst=st.integers(0, 5000),
)
def test_a_bucket_never_passes_more_than_rate_and_burst(
    sizes: list[int], gaps: list[float], rate: float, burst: int
) -> None:
    bucket, now, passed = TokenBucket(rate, burst), 0.0, []
    for size, gap in zip(sizes, gaps, strict=False):
        now += gap
        passed.append((now, bucket.passed_at(size, now)))
    assert all(done >= arrived for arrived, done in passed)
    for first in range(len(sizes)):
        for last in range(first, len(sizes)):
            # What arrived from `first` on had passed by the end of `last`.
            span = passed[last][1] - passed[first][0]
            assert sum(sizes[first : last + 1]) <= rate * span + burst + 1e-6 * (1 + rate)


def test_jitter_is_a_function_of_the_seed() -> None:
    toxics = (Latency(latency_ms=10, jitter_ms=5),)
    one, same, other = (Link(toxics, seed) for seed in (1, 1, 2))
    drawn = [[link.due(1, 0.0) for _ in range(5)] for link in (one, same, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_every_profile_says_what_it_is_and_where_its_numbers_come_from() -> None:
    trips = [profile.rtt_ms for profile in PROFILES.values()]
    assert trips == [0, 1, 5, 20, 50, 120]
    assert list(PROFILES) == ["loopback", "lan", "wifi", "5g", "4g", "bad-4g"]
    assert all(profile.source for profile in PROFILES.values())
    assert "20 ms round trip; up 10 ± 2 ms, 14.7 Mbit/s" in PROFILES["5g"].describe()
    assert find_profile(PROFILES["wifi"].model_dump_json()) == PROFILES["wifi"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("4gg", "did you mean '4g'"),
        ("carrier pigeon", "known are loopback, lan"),
        ('{"name": "x", "up": [{"kind": "latency", "latency_ms": -1}]}', "up.0.latency.latency_ms"),
        ("{", "profile: document"),
    ],
)
def test_an_unknown_profile_is_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^profile: ") as caught:
        find_profile(name)
    assert sentence in str(caught.value)
