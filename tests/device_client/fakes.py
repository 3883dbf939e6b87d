"""Fakes that go through the seams: a cloud that answers by the product's own session, and a drafter to match."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ciar.benchmarks.simulation.transport import Clock, SimulatedSession, Times
from ciar.cloud_server.batch import PassSession, Segment
from ciar.cloud_server.session import Admitted, Reply
from ciar.cloud_server.session import Session as CloudSession
from ciar.cloud_server.window import WindowPolicy
from ciar.shared.bundle import Manifest, digest_of
from ciar.shared.errors import CiarError
from ciar.shared.sampling import sample
from ciar.shared.types import CloudFrame, DeviceFrame, Draft, Limits, Open, Sampling, Tokens
from tests.support.hash_drafter import HashDrafter

CONDITION = (1, 3, 0)


class CloudModel:
    """A distribution of the next token that depends on every token before it."""

    def __init__(self, manifest: Manifest) -> None:
        self.num_tokens, self.vocab_size = manifest.num_tokens, manifest.vocab_size
        self._slots: dict[int, Tokens] = {}

    def logits(self, tokens: Tokens) -> NDArray[np.float32]:
        """tokens: (n,) those known -> (V,)"""
        seed = int.from_bytes(hashlib.sha256(tokens.astype(np.int64).tobytes()).digest()[:8], "little")
        return np.random.default_rng(seed).normal(0, 1.5, self.vocab_size).astype(np.float32)

    def extend(self, segments: Sequence[Segment]) -> list[NDArray[np.float32]]:
        """As a runner's, with a cache of tokens a slot."""
        results = []
        for segment in segments:
            first = max(0, segment.start - len(CONDITION))
            kept = self._slots.get(segment.slot, np.zeros(0, np.int64))[:first] if segment.start else ()
            tokens = np.concatenate([np.array(kept, np.int64), segment.tokens])
            assert len(tokens) == first + len(segment.tokens), "a gap in the cache"
            self._slots[segment.slot] = tokens
            results.append(np.stack([self.logits(tokens[:position]) for position in segment.wanted]))
        return results

    def picture(self, sampling: Sampling) -> tuple[int, ...]:
        """What the cloud generates alone, one pass a token."""
        tokens: list[int] = []
        for position in range(self.num_tokens):
            logits = self.logits(np.array(tokens, np.int64))
            tokens.append(sample(logits, position, sampling).token)
        return tuple(tokens)


class FakeCloud:
    """A Transport. Frames come when a simulated link brings them; failures strike by a script."""

    def __init__(
        self,
        manifest: Manifest,
        files: dict[str, bytes] | None = None,
        *,
        limits: Limits | None = None,
        times: Times | None = None,
        failures: dict[int, CiarError] | None = None,
    ) -> None:
        """failures: number of the frame sent or received (from 0, over all streams) -> what ends the stream then."""
        self.manifest, self.files, self.limits = manifest, files or {}, limits or Limits()
        self.model = CloudModel(manifest)
        self.times = times or Times(1.0, 0.05, lambda: 0.1)
        self.clock = Clock()
        self.failures = dict(failures or {})
        self.num_frames = 0
        self.opens: list[Open] = []
        self.drafts: list[Draft] = []
        self.closed = False
        self.num_fetched = 0

    def model_info(self, timeout_s: float) -> tuple[str, str, Limits]:
        return self.manifest.model_dump_json(), "fake", self.limits

    def artifact(self, name: str, timeout_s: float) -> Iterator[bytes]:
        self.num_fetched += 1
        data = self.files[name]
        yield from (data[i : i + 1000] for i in range(0, len(data), 1000))

    def generate(self, timeout_s: float) -> FakeSession:
        return FakeSession(self)

    def close(self) -> None:
        self.closed = True

    def make(self, request: Open, reply: Reply) -> PassSession:
        """Admit a picture, as the product's admission would."""
        assert request.bundle_digest == digest_of(self.manifest.model_dump_json())
        self.opens.append(request)
        admitted = Admitted(
            session_id="s",
            condition=np.array(CONDITION, np.int64),
            sampling=request.sampling,
            verify=request.verify,
            num_prefix_tokens=request.num_prefix_tokens,
            max_window=min(request.max_window or 64, self.limits.max_window),
            history=request.history,
        )
        return CloudSession(
            admitted,
            0,
            reply,
            num_tokens=self.manifest.num_tokens,
            vocab_size=self.manifest.vocab_size,
            chunk=self.manifest.grid_width,
            limits=self.limits,
            policy=WindowPolicy(),
        )

    def fail_on_schedule(self) -> None:
        error = self.failures.pop(self.num_frames, None)
        self.num_frames += 1
        if error is not None:
            raise error


class FakeSession:
    """One stream, in one thread."""

    def __init__(self, cloud: FakeCloud) -> None:
        self.bytes_up = self.bytes_down = 0
        self.is_closed = False
        self._cloud = cloud
        self._session = SimulatedSession(cloud.model.extend, cloud.make, cloud.times, cloud.clock)
        self._error: CiarError | None = None

    def send(self, frame: DeviceFrame) -> None:
        self.bytes_up += 1
        if self._error is not None:
            return
        try:
            self._cloud.fail_on_schedule()
        except CiarError as error:
            self._error = error
            return
        if isinstance(frame, Draft):
            self._cloud.drafts.append(frame)
        self._session.send(frame)

    def receive(self, timeout_s: float) -> CloudFrame | None:
        if self._error is not None:
            raise self._error
        self._cloud.clock.spend(0.01)
        frame = self._session.receive(timeout_s)
        if frame is not None:
            self._cloud.fail_on_schedule()
            self.bytes_down += 1
        return frame

    def close(self) -> None:
        self.is_closed = True


def fake_drafter(cloud: FakeCloud, agreement: float = 0.5, *, checks_rows: bool = True) -> HashDrafter:
    """A drafter that knows the cloud's distribution at a share of the positions."""
    return HashDrafter(cloud.manifest.vocab_size, cloud.model.logits, agreement, checks_rows=checks_rows)
