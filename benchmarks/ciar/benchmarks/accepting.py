"""A cloud that verifies at once: what a picture costs the device if every draft is accepted and there is no network.

In: any `Transport` to a real cloud. Out: the same, but a picture's stream stays in this process: every draft is
accepted while it is sent. The condition is the real cloud's, fetched when a picture is first opened and kept, so the
second time waits for nothing. All the device's own work is there: drafter, gate, drafts, codec. There is no prefix.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import closing

from ciar.device_client.transport import Session, Transport
from ciar.shared import codec
from ciar.shared.errors import TimedOut
from ciar.shared.types import CloudFrame, DeviceFrame, Draft, Finish, Limits, Open, Opened, Summary, Verdict, Verify


class AcceptingTransport:
    """`Transport` around another, whose streams it answers by itself."""

    def __init__(self, cloud: Transport) -> None:
        self._cloud = cloud
        self._opened: dict[str, Opened] = {}

    def model_info(self, timeout_s: float) -> tuple[str, str, Limits]:
        return self._cloud.model_info(timeout_s)

    def artifact(self, name: str, timeout_s: float) -> Iterator[bytes]:
        return self._cloud.artifact(name, timeout_s)

    def generate(self, timeout_s: float) -> Session:
        return _AcceptingSession(self, timeout_s)

    def close(self) -> None:
        self._cloud.close()

    def opened(self, frame: Open, timeout_s: float) -> Opened:
        """What the real cloud answers to `frame`, asked once for each prompt."""
        if frame.prompt not in self._opened:
            with closing(self._cloud.generate(timeout_s)) as session:
                session.send(frame)
                opened = session.receive(timeout_s)
            if not isinstance(opened, Opened):
                raise TimedOut(f"server: it did not open the picture within {timeout_s:g} s")
            self._opened[frame.prompt] = opened
        return self._opened[frame.prompt]


class _AcceptingSession:
    """`Session` whose every answer lies ready; bytes down are not counted, since nothing comes down."""

    def __init__(self, transport: AcceptingTransport, timeout_s: float) -> None:
        self.bytes_up = self.bytes_down = 0
        self._transport, self._timeout_s = transport, timeout_s
        self._frames: deque[CloudFrame] = deque()
        self._verify = Verify.ALL

    def send(self, frame: DeviceFrame) -> None:
        self.bytes_up += codec.encode_device_frame(frame).ByteSize()
        match frame:
            case Open():
                self._verify = frame.verify
                self._frames.append(self._transport.opened(frame, self._timeout_s))
            case Draft():
                tokens = frame.tokens if self._verify is Verify.ALL else frame.tokens[frame.to_verify]
                if len(tokens):
                    self._frames.append(Verdict(frame.seq, frame.start, tuple(tokens.tolist()), len(tokens)))
            case Finish():
                self._frames.append(Summary())

    def receive(self, timeout_s: float) -> CloudFrame | None:
        return self._frames.popleft() if self._frames else None

    def close(self) -> None:
        pass
