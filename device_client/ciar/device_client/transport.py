"""The seam between the device and a cloud: what the device needs of one, and its gRPC form.

In and out: our own types. A `Transport` knows nothing of drafting; the device knows nothing of gRPC. Tests and
in-process clouds plug in here.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import grpc

from ciar.shared import codec
from ciar.shared.errors import ERROR_KEY, CiarError, InvalidRequest, ProtocolError, Unavailable, from_status
from ciar.shared.types import CloudFrame, DeviceFrame, Finish, Limits
from ciar.v1 import service_pb2 as pb
from ciar.v1 import service_pb2_grpc as pb_grpc

MAX_MESSAGE_BYTES = 4 * 2**20


class Session(Protocol):
    """The stream of one picture."""

    bytes_up: int
    """Serialized messages sent so far."""
    bytes_down: int

    def send(self, frame: DeviceFrame) -> None:
        """Queue a frame; never blocks. A broken stream shows in `receive`."""
        ...

    def receive(self, timeout_s: float) -> CloudFrame | None:
        """The next frame, or None if there is none within `timeout_s` (0: at once). Raises what ended the stream."""
        ...

    def close(self) -> None:
        """Let go of the stream: in peace after Finish, else by cancelling it. May be called twice."""
        ...


class Transport(Protocol):
    """A way to a cloud."""

    def model_info(self, timeout_s: float) -> tuple[str, str, Limits]:
        """(manifest JSON, server version, limits). Raises Unavailable if nothing answers in time."""
        ...

    def artifact(self, name: str, timeout_s: float) -> Iterator[bytes]:
        """A device file of the bundle, in chunks."""
        ...

    def generate(self, timeout_s: float) -> Session:
        """Begin a picture's stream, which lives at most `timeout_s`."""
        ...

    def close(self) -> None:
        """End all streams."""
        ...


class GrpcTransport:
    """Over one gRPC channel. Safe to share between threads; a session belongs to one."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        """address: HOST:PORT; credentials: for TLS, without them the channel is in clear."""
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # Pings only while a stream is open, and less often than the server's floor of 10 s.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 0),
            # Resumption has its own back-off: let the channel follow it, not gRPC's 1 s … 120 s.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ]
        self._address = address
        self._channel = (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )
        self._stub = pb_grpc.CiarServiceStub(self._channel)

    def model_info(self, timeout_s: float) -> tuple[str, str, Limits]:
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout_s)
        except grpc.FutureTimeoutError as exc:
            raise Unavailable(f"server: nothing answers at {self._address} within {timeout_s:g} s") from exc
        with _domain_errors():
            info: pb.GetModelInfoResponse = self._stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=timeout_s)
        return info.manifest_json, info.server_version, codec.decode_limits(info.limits)

    def artifact(self, name: str, timeout_s: float) -> Iterator[bytes]:
        with _domain_errors():
            for message in self._stub.GetArtifact(pb.GetArtifactRequest(name=name), timeout=timeout_s):
                yield message.data

    def generate(self, timeout_s: float) -> Session:
        return GrpcSession(self._stub, timeout_s)

    def close(self) -> None:
        self._channel.close()


class GrpcSession:
    """A Generate stream: gRPC's thread takes requests from one queue, a reader thread fills the other."""

    def __init__(self, stub: pb_grpc.CiarServiceStub, timeout_s: float) -> None:
        self.bytes_up = 0
        self.bytes_down = 0
        self._requests: queue.SimpleQueue[pb.GenerateRequest | None] = queue.SimpleQueue()
        self._frames: queue.SimpleQueue[CloudFrame | CiarError] = queue.SimpleQueue()
        self._finished = False
        self._call = stub.Generate(iter(self._requests.get, None), timeout=timeout_s)
        threading.Thread(target=self._read, name="ciar-session-reader", daemon=True).start()

    def send(self, frame: DeviceFrame) -> None:
        message = codec.encode_device_frame(frame)
        self.bytes_up += message.ByteSize()
        self._finished = isinstance(frame, Finish)
        self._requests.put(message)

    def receive(self, timeout_s: float) -> CloudFrame | None:
        try:
            frame = self._frames.get(timeout=timeout_s) if timeout_s > 0 else self._frames.get_nowait()
        except queue.Empty:
            return None
        if isinstance(frame, CiarError):
            self._frames.put(frame)  # the end stays the end
            raise frame
        return frame

    def close(self) -> None:
        self._requests.put(None)  # frees gRPC's thread, and half-closes the stream
        if not self._finished:
            self._call.cancel()

    def _read(self) -> None:
        """Until the stream ends: decode, and pass on how it ended."""
        try:
            with _domain_errors():
                for message in self._call:
                    self.bytes_down += message.ByteSize()
                    self._frames.put(_decode(message))
            self._frames.put(Unavailable("server: it ended the session"))
        except CiarError as error:
            self._frames.put(error)
        finally:
            self._requests.put(None)


def _decode(message: pb.GenerateResponse) -> CloudFrame:
    try:
        return codec.decode_cloud_frame(message)
    except InvalidRequest as exc:
        raise ProtocolError(f"server: {exc}") from exc


_LOST_CONNECTION = ("RST_STREAM", "Stream removed", "Connection reset", "Socket closed", "GOAWAY")
"""Fragments by which gRPC tells a vanished peer under a status that is not UNAVAILABLE."""


@contextmanager
def _domain_errors() -> Iterator[None]:
    """Raise our errors in place of gRPC's."""
    try:
        yield
    except grpc.RpcError as exc:
        raise _to_domain(exc) from exc


def _to_domain(error: grpc.RpcError) -> CiarError:
    if not isinstance(error, grpc.Call):
        return Unavailable(f"server: {error}")
    code, details = error.code(), error.details() or "no details"
    metadata = {str(key): str(value) for key, value in error.trailing_metadata() or ()}
    is_ours = ERROR_KEY in metadata
    if not is_ours and (code is grpc.StatusCode.CANCELLED or any(part in details for part in _LOST_CONNECTION)):
        return Unavailable(f"server: connection lost ({details})")
    return from_status(code, details if is_ours else f"server: {details}", metadata)
