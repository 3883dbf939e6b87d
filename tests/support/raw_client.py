"""A device without manners: speaks the contract through the bare stub, and lets a test send any frame at any time."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np

from ciar.shared import codec
from ciar.shared.bundle import MANIFEST, digest_of
from ciar.shared.types import (
    CloudFrame,
    DeviceFrame,
    Draft,
    Finish,
    Open,
    Opened,
    Sampling,
    Summary,
    Verdict,
    Verify,
)
from ciar.v1 import service_pb2 as pb
from ciar.v1 import service_pb2_grpc as pb_grpc

DEADLINE_S = 60
"""End of every call, so that a test fails instead of hanging."""

GENERATE = "/ciar.v1.CiarService/Generate"


class RawClient:
    """A channel to a server, and what a good request to it looks like."""

    def __init__(self, address: str, bundle: Path) -> None:
        # A pool of its own: no other client's connection, back-off or GOAWAY is shared.
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.stub = pb_grpc.CiarServiceStub(self.channel)
        self.bundle_digest = digest_of((bundle / MANIFEST).read_text(encoding="utf-8"))

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def generate(
        self, prompt: str = "red heart", sampling: Sampling | None = None, history: Sequence[int] = ()
    ) -> list[int]:
        """The tokens that the cloud alone generates, behind `history`."""
        conversation = self.converse()
        conversation.send(
            self.open_frame(prompt=prompt, sampling=sampling, verify=Verify.ALL, history=history, num_prefix_tokens=0)
        )
        assert isinstance(conversation.read(), Opened)
        while len(conversation.tokens) < 36:
            conversation.read()
        conversation.finish()
        return conversation.tokens[len(history) :]

    def converse(self) -> Conversation:
        """A stream with no frame sent yet."""
        return Conversation(self.channel)

    def open_frame(
        self,
        *,
        prompt: str = "red heart",
        sampling: Sampling | None = None,
        bundle_digest: str | None = None,
        verify: Verify = Verify.MARKED,
        num_prefix_tokens: int = 2,
        max_window: int = 0,
        history: Sequence[int] = (),
    ) -> Open:
        """An Open that any server of the bundle takes."""
        return Open(
            prompt=prompt,
            sampling=sampling or Sampling(),
            bundle_digest=self.bundle_digest if bundle_digest is None else bundle_digest,
            verify=verify,
            num_prefix_tokens=num_prefix_tokens,
            max_window=max_window,
            history=np.array(history, np.int64),
        )

    def opened(self, **open_fields: object) -> Conversation:
        """A session whose Opened and prefix have been read."""
        frame = self.open_frame(**open_fields)  # type: ignore[arg-type]
        conversation = self.converse()
        conversation.send(frame)
        assert isinstance(conversation.read(), Opened)
        while len(conversation.tokens) < frame.num_prefix_tokens:
            conversation.read()
        return conversation


class Conversation:
    """One Generate stream: `send` and `read` as you like; every read raises grpc.RpcError once it has failed."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.tokens: list[int] = []
        """What is verified, if every draft has all its tokens marked; `read` keeps it."""
        self._seq = self._num_verdicts = self._drafted_end = 0
        self._finished = False
        # Bytes on both sides, so that a test can send what no message would serialise to.
        self.call = channel.stream_stream(GENERATE)(self._requests(), timeout=DEADLINE_S)

    def _requests(self) -> Iterator[bytes]:
        while (data := self._outbox.get()) is not None:
            yield data

    def send_bytes(self, data: bytes) -> None:
        self._outbox.put(data)

    def send(self, frame: DeviceFrame | pb.GenerateRequest) -> None:
        message = frame if isinstance(frame, pb.GenerateRequest) else codec.encode_device_frame(frame)
        if isinstance(frame, Open):
            self.tokens = frame.history.tolist()
        self._finished = isinstance(frame, Finish)
        if isinstance(frame, Draft):
            self._seq, self._drafted_end = frame.seq, frame.end
        self.send_bytes(message.SerializeToString())

    def end(self) -> None:
        """End our side of the stream."""
        self._outbox.put(None)

    def read(self) -> CloudFrame:
        """The next frame of the cloud; keeps `tokens`."""
        frame = codec.decode_cloud_frame(pb.GenerateResponse.FromString(next(self.call)))
        if isinstance(frame, Verdict):
            self.tokens[frame.start :] = frame.tokens[: frame.num_verified]
            self._num_verdicts += 1
            if frame.waiting and not self._finished:  # a device of good manners says that it came
                nothing = np.zeros(0, np.int64)
                none = np.zeros(0, np.bool_)
                self.send(Draft(self._seq + 1, self._drafted_end, nothing, none, self._num_verdicts))
        return frame

    def draft(self, tokens: Sequence[int], *, start: int | None = None, seq: int | None = None) -> Draft:
        """A draft whose every token is marked; starts behind the verified ones unless told otherwise."""
        return Draft(
            self._seq + 1 if seq is None else seq,
            len(self.tokens) if start is None else start,
            np.array(tokens, np.int64),
            np.ones(len(tokens), np.bool_),
        )

    def finish(self) -> Summary:
        """Finish, end the stream and take the summary."""
        self.send(Finish())
        self.end()
        while not isinstance(frame := self.read(), Summary):
            pass
        return frame

    def error(self) -> grpc.RpcError:
        """Read until the stream fails; what it failed with. Fails the test if it ends well."""
        try:
            while True:
                self.read()
        except StopIteration:
            raise AssertionError("the stream ended with OK") from None
        except grpc.RpcError as error:
            return error
        finally:
            self.end()  # lets the thread that carries our requests go
