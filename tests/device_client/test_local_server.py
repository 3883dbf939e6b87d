"""A server as a child process: here a few lines of Python in its place."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ciar.device_client import LocalServer
from ciar.shared.errors import InvalidRequest, Unavailable

HEALTHY = """
import sys, grpc, time
from concurrent import futures
print("some log", file=sys.stderr)
server = grpc.server(futures.ThreadPoolExecutor(1))
check = grpc.unary_unary_rpc_method_handler(lambda request, context: bytes([8, 1]))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"serving on 127.0.0.1:{port}", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


def local_server(script: str, start_timeout_s: float = 30) -> LocalServer:
    server = LocalServer(start_timeout_s=start_timeout_s)
    server._command = [sys.executable, "-c", script]
    return server


def test_it_serves_and_ends() -> None:
    with local_server(HEALTHY) as server:
        assert server.address.startswith("127.0.0.1:")
        process = server._process
        assert process is not None
        assert process.poll() is None
    assert process.poll() is not None


def test_what_stops_tells_why() -> None:
    with pytest.raises(Unavailable, match=r"stopped with code 3.*no such weights"):
        local_server("import sys; print('no such weights', file=sys.stderr); sys.exit(3)").start()


def test_what_does_not_get_ready_is_ended() -> None:
    server = local_server("import time; time.sleep(60)", start_timeout_s=0.2)
    with pytest.raises(Unavailable, match="did not get ready"):
        server.start()
    assert server._process is None


def test_the_command_names_the_bundle() -> None:
    assert LocalServer(Path("x"), arguments=("--threads", "1"))._command[1:] == [
        "-P", "-m", "ciar.cloud_server", "--address", "127.0.0.1:0", "--threads", "1", "--bundle", "x",
    ]  # fmt: skip


def test_without_the_server_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match=r"ciar-cloud"):
        LocalServer().start()
