"""A device's transport to a cloud in the same process: the real engine and admission, without gRPC or wire."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ciar.cloud_server.admission import Admission
from ciar.cloud_server.engine import Engine
from ciar.cloud_server.runner import ModelRunner, load_transformer
from ciar.cloud_server.session import Session as CloudSession
from ciar.cloud_server.window import WindowPolicy
from ciar.device_client.transport import Session
from ciar.shared.bundle import MANIFEST, digest_of, load_manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import CiarError, ProtocolError
from ciar.shared.types import CloudFrame, DeviceFrame, Draft, Limits, Open


class InProcessTransport:
    """`device_client.Transport` over an engine of its own."""

    def __init__(self, bundle: Path, *, limits: Limits | None = None, max_sessions: int = 4) -> None:
        self._bundle = bundle
        self._limits = limits or Limits()
        self._manifest_json = (bundle / MANIFEST).read_text(encoding="utf-8")
        manifest = load_manifest(bundle)
        self.admission = Admission(
            manifest,
            CaptionVocabulary.load(bundle / "captions.json"),
            self._limits,
            bundle_digest=digest_of(self._manifest_json),
            max_sessions=max_sessions,
            retry_after_ms=10,
        )
        self.engine = Engine(ModelRunner(load_transformer(bundle), max_sessions))
        self._make_session = partial(
            CloudSession,
            num_tokens=manifest.num_tokens,
            vocab_size=manifest.vocab_size,
            chunk=manifest.grid_width,
            limits=self._limits,
            policy=WindowPolicy(),
        )
        self.engine.start()

    def model_info(self, timeout_s: float) -> tuple[str, str, Limits]:
        return self._manifest_json, "in process", self._limits

    def artifact(self, name: str, timeout_s: float) -> Iterator[bytes]:
        yield (self._bundle / name).read_bytes()

    def generate(self, timeout_s: float) -> Session:
        return InProcessSession(self.admission, self.engine, self._make_session)

    def close(self) -> None:
        self.engine.stop()


class InProcessSession:
    """One conversation with the engine."""

    def __init__(self, admission: Admission, engine: Engine, make_session: Callable[..., CloudSession]) -> None:
        self.bytes_up = self.bytes_down = 0
        self._admission, self._engine, self._make_session = admission, engine, make_session
        self._replies: queue.SimpleQueue[CloudFrame | CiarError] = queue.SimpleQueue()
        self._session_id = ""
        self._slot: int | None = None

    def send(self, frame: DeviceFrame) -> None:
        try:
            self._forward(frame)
        except CiarError as error:
            self._replies.put(error)

    def _forward(self, frame: DeviceFrame) -> None:
        if isinstance(frame, Open):
            if self._slot is not None:
                raise ProtocolError("frame: a second open; a stream has one")
            admitted = self._admission.admit(frame)
            self._slot = self._admission.acquire_slot()
            self._session_id = admitted.session_id
            self._engine.open(self._session_id, self._slot, self._replies.put, partial(self._make_session, admitted))
            return
        if isinstance(frame, Draft):
            self._admission.check_draft(frame)
        self._engine.submit(self._session_id, frame)

    def receive(self, timeout_s: float) -> CloudFrame | None:
        try:
            reply = self._replies.get(timeout=timeout_s) if timeout_s > 0 else self._replies.get_nowait()
        except queue.Empty:
            return None
        if isinstance(reply, CiarError):
            self._replies.put(reply)
            raise reply
        return reply

    def close(self) -> None:
        if self._slot is not None:
            self._engine.close(self._session_id)
            self._admission.release_slot(self._slot)
            self._slot = None
