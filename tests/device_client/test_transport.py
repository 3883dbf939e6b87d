"""The gRPC transport over the loopback: the fake cloud behind real streams, and real failures."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from ciar.device_client import Client, GrpcTransport
from ciar.shared import codec
from ciar.shared.bundle import Manifest
from ciar.shared.errors import Busy, CiarError, NotFound, ProtocolError, TimedOut, Unavailable, trailing_metadata
from ciar.shared.types import CloudFrame, Finish, Sampling
from ciar.v1 import service_pb2 as pb
from ciar.v1 import service_pb2_grpc as pb_grpc
from tests.device_client.conftest import QUICK
from tests.device_client.fakes import FakeCloud, FakeSession

StartServer = Callable[..., tuple[str, FakeCloud]]


class FakeServicer(pb_grpc.CiarServiceServicer):
    """A FakeCloud's answers as messages."""

    def __init__(self, cloud: FakeCloud) -> None:
        self.cloud = cloud
        self.ends: queue.Queue[str] = queue.Queue()

    def GetModelInfo(self, request: Any, context: Any) -> pb.GetModelInfoResponse:  # noqa: N802
        text, version, limits = self.cloud.model_info(1)
        return pb.GetModelInfoResponse(manifest_json=text, server_version=version, limits=codec.encode_limits(limits))

    def GetArtifact(self, request: Any, context: Any) -> Iterator[pb.GetArtifactResponse]:  # noqa: N802
        if request.name not in self.cloud.files:
            _abort(context, NotFound("name: none such"))
        for data in self.cloud.artifact(request.name, 1):
            yield pb.GetArtifactResponse(data=data)

    def Generate(self, requests: Any, context: Any) -> Iterator[pb.GenerateResponse]:  # noqa: N802
        session = self.cloud.generate(1)
        try:
            for message in requests:
                frame = codec.decode_device_frame(message)
                session.send(frame)
                yield from map(codec.encode_cloud_frame, _all_there_is(session))
                if isinstance(frame, Finish):
                    self.ends.put("finish")
                    return
        except CiarError as error:
            _abort(context, error)
        self.ends.put("cancel")


def _all_there_is(session: FakeSession) -> Iterator[CloudFrame]:
    while True:
        try:
            frame = session.receive(60)
        except TimedOut:  # in simulated time: both sides wait for each other
            return
        assert frame is not None
        yield frame


def _abort(context: Any, error: CiarError) -> None:
    context.set_trailing_metadata(trailing_metadata(error))
    context.abort(error.code, str(error))


@pytest.fixture
def start_server(manifest: Manifest, files: dict[str, bytes]) -> Iterator[StartServer]:
    servers = []

    def start(**settings: Any) -> tuple[str, FakeServicer]:
        server = grpc.server(futures.ThreadPoolExecutor(4))
        servicer = FakeServicer(FakeCloud(manifest, files, **settings))
        pb_grpc.add_CiarServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}", servicer

    yield start
    for server in servers:
        server.stop(None)


@pytest.mark.parametrize("mode", ["ciar", "lossless", "cloud", "device"])
def test_both_transports_draw_the_same(
    start_server: StartServer, make_client: Callable[..., Any], tmp_path: Path, mode: str
) -> None:
    near, _ = make_client()
    address, servicer = start_server()
    with Client(address, cache_dir=tmp_path / "grpc", retry=QUICK) as far:
        one, other = (client.generate("x", seed=6, mode=mode) for client in (near, far))
        assert one.tokens == other.tokens
        if mode != "lossless":  # there a token may be verified before it is drafted, or after
            assert (one.decisions, one.uncertainty) == (other.decisions, other.uncertainty)
        assert other.traffic.bytes_down > 0
        assert other.traffic.bytes_up > 64  # at least the digest
        assert servicer.ends.get(timeout=10) == "finish"


def test_a_lost_stream_is_taken_up_again(start_server: StartServer, tmp_path: Path) -> None:
    address, servicer = start_server(failures={3: Unavailable("gone"), 6: Busy("full", 1)})
    with Client(address, cache_dir=tmp_path, retry=QUICK) as client:
        result = client.generate("x", seed=6, mode="lossless")
    assert result.tokens == servicer.cloud.model.picture(Sampling(seed=6))
    assert result.traffic.num_resumptions == 2


def test_errors_keep_their_class_and_sentence(start_server: StartServer, tmp_path: Path) -> None:
    address, _ = start_server(failures={2: ProtocolError("frame: misplaced")})
    with Client(address, cache_dir=tmp_path, retry=QUICK) as client, pytest.raises(ProtocolError) as caught:
        client.generate("x", mode="lossless")
    assert str(caught.value) == "frame: misplaced"
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_an_interrupted_picture_cancels_its_stream(start_server: StartServer, tmp_path: Path) -> None:
    address, _ = start_server()

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with Client(address, cache_dir=tmp_path, retry=QUICK) as client:
        with pytest.raises(KeyboardInterrupt):
            client.generate("x", on_progress=interrupt)
        assert client.generate("x").tokens  # the channel is whole


def test_nothing_there_is_unavailable() -> None:
    with Client("127.0.0.1:1", connect_timeout_s=0.2) as client, pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        client.generate("x")


def test_a_file_that_is_not_there(start_server: StartServer) -> None:
    transport = GrpcTransport(start_server()[0])
    with pytest.raises(NotFound, match="none such"):
        list(transport.artifact("other", 5))
    transport.close()


def test_a_stream_has_a_deadline(start_server: StartServer) -> None:
    transport = GrpcTransport(start_server()[0])
    session = transport.generate(0.1)
    assert session.receive(0) is None
    with pytest.raises(TimedOut):
        session.receive(10)
    session.close()
    session.close()
    transport.close()
