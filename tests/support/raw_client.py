"""A device without manners: speaks the contract through the bare stub, and lets a test send any frame at any time."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np

from ciar.shared import codec
from ciar.shared.bundle import load_manifest
from ciar.shared.types import (
    COUPLED,
    Acceptance,
    Block,
    CloudFrame,
    DeviceFrame,
    Draft,
    Finish,
    Open,
    Opened,
    Sampling,
    Summary,
    Verdict,
    Written,
)
from ciar.v1 import service_pb2 as pb
from ciar.v1 import service_pb2_grpc as pb_grpc

DEADLINE_S = 60
"""End of every call, so that a test fails instead of hanging."""

COLLABORATE = "/ciar.v1.CiarService/Collaborate"


class RawClient:
    """A channel to a server, and what a good request to it looks like."""

    def __init__(self, address: str, bundle: Path) -> None:
        # A pool of its own: no other client's connection, back-off or GOAWAY is shared.
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.stub = pb_grpc.CiarServiceStub(self.channel)
        self.manifest = load_manifest(bundle, check_files=False)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def generate(
        self, prompt: str = "red heart", sampling: Sampling | None = None, resume_tokens: Sequence[int] = ()
    ) -> list[int]:
        """The tokens that the cloud alone draws, after `resume_tokens`."""
        request = pb.GenerateRequest(
            prompt=prompt, sampling=codec.encode_sampling(sampling or Sampling()), resume_tokens=resume_tokens
        )
        return [token for part in self.stub.Generate(request, timeout=DEADLINE_S) for token in part.tokens]

    def collaborate(self) -> Conversation:
        """A stream with no frame sent yet."""
        return Conversation(self.channel, self.manifest.feature_dim)

    def open_frame(
        self,
        *,
        prompt: str = "red heart",
        sampling: Sampling | None = None,
        num_prefix_tokens: int = 2,
        file_digests: dict[str, str] | None = None,
        history: Block | None = None,
        acceptance: Acceptance = COUPLED,
        carry_on: bool = False,
    ) -> Open:
        """An Open that any server of the bundle takes."""
        return Open(
            prompt=prompt,
            sampling=sampling or Sampling(),
            num_prefix_tokens=num_prefix_tokens,
            file_digests=self.manifest.device_digests() if file_digests is None else file_digests,
            history=history or Block.empty(self.manifest.feature_dim),
            acceptance=acceptance,
            carry_on=carry_on,
        )

    def opened(self, **open_fields: object) -> Conversation:
        """A session whose opened and prefix frames have been read."""
        conversation = self.collaborate()
        conversation.send(self.open_frame(**open_fields))  # type: ignore[arg-type]
        conversation.read_prefix()
        return conversation


class Conversation:
    """One Collaborate stream: `send` and `read` as you like; every read raises grpc.RpcError once it has failed."""

    def __init__(self, channel: grpc.Channel, feature_dim: int) -> None:
        self._feature_dim = feature_dim
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.epoch = 0
        self.tokens: list[int] = []
        """What is decided; `read` keeps it."""
        self._drafted: list[Block] = []
        # Bytes on both sides, so that a test can send what no message would serialise to.
        self.call = channel.stream_stream(COLLABORATE)(self._requests(), timeout=DEADLINE_S)

    def _requests(self) -> Iterator[bytes]:
        while (data := self._outbox.get()) is not None:
            yield data

    def send_bytes(self, data: bytes) -> None:
        self._outbox.put(data)

    def send(self, frame: DeviceFrame | pb.CollaborateRequest) -> None:
        message = frame if isinstance(frame, pb.CollaborateRequest) else codec.encode_device_frame(frame)
        if isinstance(frame, Open):
            self.tokens = frame.history.tokens.tolist()
        if isinstance(frame, Draft):
            self._drafted.append(frame.block)
        self.send_bytes(message.SerializeToString())

    def end(self) -> None:
        """End our side of the stream."""
        self._outbox.put(None)

    def read(self) -> CloudFrame:
        """The next frame of the cloud; keeps `tokens` and `epoch`."""
        frame = codec.decode_cloud_frame(pb.CollaborateResponse.FromString(next(self.call)))
        if isinstance(frame, Written):
            self.tokens += frame.tokens
        if isinstance(frame, Verdict):
            self._take(frame)
        return frame

    def _take(self, verdict: Verdict) -> None:
        block = self._drafted.pop(0)
        if verdict.stale:
            return
        end = verdict.correction.position if verdict.correction else verdict.verified_through
        self.tokens += block.tokens[: end - block.start].tolist()
        if verdict.correction:
            self.tokens += verdict.correction.tokens
            self.epoch = verdict.correction.next_epoch

    def read_prefix(self) -> tuple[Opened, Written]:
        opened, prefix = self.read(), self.read()
        assert isinstance(opened, Opened)
        assert isinstance(prefix, Written)
        return opened, prefix

    def draft(self, tokens: Sequence[int], *, start: int | None = None, epoch: int | None = None) -> Draft:
        """A draft that asks about each of its tokens; starts after the decided ones unless told otherwise."""
        return Draft(
            self.epoch if epoch is None else epoch,
            ask_all(tokens, len(self.tokens) if start is None else start, self._feature_dim),
        )

    def finish(self) -> Summary:
        """Finish, end the stream and take the summary."""
        self.send(Finish())
        self.end()
        summary = self.read()
        assert isinstance(summary, Summary)
        return summary

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


def ask_all(tokens: Sequence[int], start: int, feature_dim: int) -> Block:
    """A block whose every token is asked about."""
    return Block(
        start,
        np.array(tokens, np.int64),
        np.ones(len(tokens), np.bool_),
        np.zeros(len(tokens), np.bool_),
        np.zeros((0, feature_dim), np.float16),
    )
