"""A cloud that says yes at once: what a picture costs the device if every draft is accepted and there is no network.

In: any `Transport` to a real cloud. Out: the same, but a collaboration stays in this process: every question is
confirmed while it is asked. Condition and prefix are the real cloud's, fetched when a picture is first opened and kept,
so the second drawing of a picture waits for nothing. All the device's own work is there: drafter, gate, blocks, codec.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing

from ciar.device_client.transport import Session, Transport
from ciar.shared import codec
from ciar.shared.errors import ProtocolError, TimedOut
from ciar.shared.tree import longest_path
from ciar.shared.types import (
    CloudFrame,
    Correction,
    DeviceFrame,
    Draft,
    Finish,
    Limits,
    Open,
    Opened,
    Sampling,
    Summary,
    TreeDraft,
    Verdict,
    Written,
)

_Opening = tuple[Opened, Written]


class AcceptingTransport:
    """`Transport` around another, which answers collaborations by itself."""

    def __init__(self, cloud: Transport) -> None:
        self._cloud = cloud
        self._openings: dict[tuple[str, Sampling, int], _Opening] = {}

    def model_info(self, timeout_s: float) -> tuple[str, str, Limits]:
        return self._cloud.model_info(timeout_s)

    def artifact(self, name: str, timeout_s: float) -> Iterator[bytes]:
        return self._cloud.artifact(name, timeout_s)

    def generate(
        self, prompt: str, sampling: Sampling, resume_tokens: Sequence[int], timeout_s: float
    ) -> Iterator[tuple[Written, int]]:
        return self._cloud.generate(prompt, sampling, resume_tokens, timeout_s)

    def collaborate(self, timeout_s: float) -> Session:
        return _AcceptingSession(self, timeout_s)

    def close(self) -> None:
        self._cloud.close()

    def opening(self, frame: Open, timeout_s: float) -> _Opening:
        """What the real cloud answers to `frame`, asked once for each picture."""
        key = frame.prompt, frame.sampling, frame.num_prefix_tokens
        if key not in self._openings:
            with closing(self._cloud.collaborate(timeout_s)) as session:
                session.send(frame)
                opened, written = session.receive(timeout_s), session.receive(timeout_s)
            if not (isinstance(opened, Opened) and isinstance(written, Written)):
                raise TimedOut(f"server: it did not write the prefix within {timeout_s:g} s")
            self._openings[key] = opened, written
        return self._openings[key]


class _AcceptingSession:
    """`Session` whose every answer lies ready; bytes down are not counted, since nothing comes down."""

    def __init__(self, transport: AcceptingTransport, timeout_s: float) -> None:
        self.bytes_up = self.bytes_down = 0
        self._transport, self._timeout_s = transport, timeout_s
        self._frames: deque[CloudFrame] = deque()

    def send(self, frame: DeviceFrame) -> None:
        self.bytes_up += codec.encode_device_frame(frame).ByteSize()
        match frame:
            case Open():
                self._frames.extend(self._transport.opening(frame, self._timeout_s))
            case Draft(epoch, block):
                self._frames.append(Verdict(epoch, block.end))
            case TreeDraft(epoch, start, tokens, parents):  # no token after the path: there is no cloud to draw it
                path = longest_path(tokens.tolist(), parents)
                self._frames.append(Verdict(epoch, start + len(path), Correction(start, tuple(path), epoch + 1)))
            case Finish():
                self._frames.append(Summary())
            case _:
                raise ProtocolError(f"frame: no way to accept a {type(frame).__name__} is known")

    def receive(self, timeout_s: float) -> CloudFrame | None:
        return self._frames.popleft() if self._frames else None

    def close(self) -> None:
        pass
