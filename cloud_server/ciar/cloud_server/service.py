"""The gRPC edge: messages in, messages out; what happens between is the engine's.

Knows the wire, deadlines and vanishing clients. Knows nothing of torch.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from ciar.cloud_server.admission import Admission
from ciar.cloud_server.batch import PassSession
from ciar.cloud_server.engine import Engine
from ciar.cloud_server.session import Admitted, Reply
from ciar.shared import codec
from ciar.shared.bundle import MANIFEST, Manifest
from ciar.shared.errors import (
    CiarError,
    InternalError,
    InvalidRequest,
    NotFound,
    ProtocolError,
    TimedOut,
    trailing_metadata,
)
from ciar.shared.types import CloudFrame, DeviceFrame, Draft, Finish, Limits, Open, Summary, TreeDraft, Verdict, Written
from ciar.v1 import service_pb2 as pb
from ciar.v1 import service_pb2_grpc as pb_grpc

logger = logging.getLogger(__name__)

ARTIFACT_CHUNK_BYTES = 256 * 1024

Replies = asyncio.Queue[CloudFrame | CiarError]
Handler = Callable[[Any, Any, grpc.aio.ServicerContext], Awaitable[Any]]


def domain_errors(handler: Handler) -> Handler:
    """Map a domain error to its status, and anything unforeseen to INTERNAL with a line in the log."""

    @functools.wraps(handler)
    async def wrapped(self: Any, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await handler(self, request, context)
        except CiarError as error:
            failure = error
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception:
            logger.exception("unforeseen error in %s", handler.__name__)
            failure = InternalError("unforeseen error; see the server's log")
        logger.info(
            "refused",
            extra={"rpc": handler.__name__, "error": type(failure).__name__, "reason": str(failure)},
        )
        return await context.abort(failure.code, str(failure), trailing_metadata(failure))

    return wrapped


class CiarServicer(pb_grpc.CiarServiceServicer):
    """All rpcs of ciar.v1."""

    def __init__(
        self,
        *,
        bundle: Path,
        manifest: Manifest,
        limits: Limits,
        admission: Admission,
        engine: Engine,
        make_session: Callable[[Admitted, int, Reply], PassSession],
        version: str,
        idle_timeout_s: float,
        session_timeout_s: float,
    ) -> None:
        self._bundle, self._manifest, self._limits = bundle, manifest, limits
        self._admission, self._engine, self._version = admission, engine, version
        self._make_session = make_session
        self._idle_timeout_s, self._session_timeout_s = idle_timeout_s, session_timeout_s

    @domain_errors
    async def GetModelInfo(  # noqa: N802
        self, _request: pb.GetModelInfoRequest, _context: grpc.aio.ServicerContext
    ) -> pb.GetModelInfoResponse:
        return pb.GetModelInfoResponse(
            manifest_json=(self._bundle / MANIFEST).read_text(encoding="utf-8"),
            server_version=self._version,
            limits=codec.encode_limits(self._limits),
        )

    @domain_errors
    async def GetArtifact(  # noqa: N802
        self, request: pb.GetArtifactRequest, context: grpc.aio.ServicerContext
    ) -> None:
        files = self._manifest.device_files()
        if request.name not in files:
            raise NotFound(f"name: no device file {request.name!r}; there are {', '.join(sorted(files))}")
        with (self._bundle / request.name).open("rb") as file:
            while data := await asyncio.to_thread(file.read, ARTIFACT_CHUNK_BYTES):
                await context.write(pb.GetArtifactResponse(data=data))

    @domain_errors
    async def Generate(  # noqa: N802
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> None:
        admitted = self._admission.admit_generate(
            request.prompt, codec.decode_sampling(request.sampling), codec.to_tokens(request.resume_tokens)
        )
        async with self._session(admitted, context) as replies:
            end = admitted.history.end
            while end < self._manifest.num_tokens:
                written = await _next(replies)
                assert isinstance(written, Written)
                await context.write(codec.encode_written(written))
                end = written.start + len(written.tokens)

    @domain_errors
    async def Collaborate(  # noqa: N802
        self, _requests: Any, context: grpc.aio.ServicerContext
    ) -> None:
        conversation = _Conversation()
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                opening = await self._read(context, conversation)
        except EOFError as exc:
            raise ProtocolError("frame: the stream ended before open") from exc
        except TimeoutError as exc:
            raise self._silence() from exc
        if not isinstance(opening, Open):
            raise ProtocolError("frame: a session begins with open")
        admitted = self._admission.admit_open(opening)
        async with self._session(admitted, context) as replies:
            conversation.received(opening)
            tasks = [
                asyncio.create_task(self._forward(admitted, conversation, replies, context)),
                asyncio.create_task(self._end_when_silent(conversation, replies)),
            ]
            try:
                while not conversation.over:
                    frame = await _next(replies)
                    conversation.sent(frame)
                    await context.write(codec.encode_cloud_frame(frame))
            finally:
                for task in tasks:
                    task.cancel()

    async def _forward(
        self,
        admitted: Admitted,
        conversation: _Conversation,
        replies: Replies,
        context: grpc.aio.ServicerContext,
    ) -> None:
        """Give the engine every frame of the device, in order; an error ends the conversation through `replies`."""
        try:
            while True:
                frame = await self._read(context, conversation)
                if isinstance(frame, Open):
                    raise ProtocolError("frame: a second open; a session has one")
                if isinstance(frame, Draft):
                    self._admission.check_draft(frame.block)
                if isinstance(frame, TreeDraft):
                    self._admission.check_tree(frame)
                if isinstance(frame, Finish):
                    await self._expect_end(context, conversation)
                conversation.received(frame)
                if conversation.num_owed > self._limits.max_in_flight + 3:  # opened, prefix and summary besides
                    raise ProtocolError(
                        f"draft: more than {self._limits.max_in_flight} unanswered drafts; read verdicts"
                    )
                self._engine.submit(admitted.session_id, frame)
                if isinstance(frame, Finish):
                    return
        except CiarError as error:
            replies.put_nowait(error)
        except EOFError:
            replies.put_nowait(ProtocolError("frame: the stream ended without finish"))
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("unforeseen error while reading", extra={"session": admitted.session_id})
            replies.put_nowait(InternalError("unforeseen error; see the server's log"))

    async def _read(self, context: grpc.aio.ServicerContext, conversation: _Conversation) -> DeviceFrame:
        """The device's next frame. Raises EOFError at the end of the stream."""
        try:
            request = await context.read()
        except DecodeError as exc:
            raise InvalidRequest("frame: not a message of this contract (ciar.v1)") from exc
        conversation.heard()
        if request is grpc.aio.EOF:
            raise EOFError
        return codec.decode_device_frame(request, self._manifest.feature_dim)

    async def _end_when_silent(self, conversation: _Conversation, replies: Replies) -> None:
        """End the conversation when the device has owed a frame for too long: one timer for all of its frames."""
        while (left_s := self._idle_timeout_s - conversation.silence_s) > 0:
            await asyncio.sleep(left_s)
        replies.put_nowait(self._silence())

    def _silence(self) -> TimedOut:
        return TimedOut(f"no frame for {self._idle_timeout_s:g} s; open a new session, with what is decided as history")

    async def _expect_end(self, context: grpc.aio.ServicerContext, conversation: _Conversation) -> None:
        """Wait for the device's end of stream, the only thing that may follow finish."""
        try:
            await self._read(context, conversation)
        except EOFError:
            return
        raise ProtocolError("frame: nothing may follow finish; end the stream, and open a new session for more")

    @asynccontextmanager
    async def _session(self, admitted: Admitted, context: grpc.aio.ServicerContext) -> AsyncIterator[Replies]:
        """A session of the engine for as long as the block runs, whatever ends it."""
        log = {"session": admitted.session_id, "collaborative": admitted.collaborative}
        slot = self._admission.acquire_slot()
        loop = asyncio.get_running_loop()
        replies: Replies = asyncio.Queue()
        logger.info("opened", extra={**log, "slot": slot, "history_tokens": admitted.history.end})
        started = loop.time()
        try:
            self._engine.open(
                admitted.session_id,
                slot,
                lambda frame: loop.call_soon_threadsafe(replies.put_nowait, frame),
                partial(self._make_session, admitted),
            )
            try:
                async with asyncio.timeout(self._session_timeout_s):
                    yield replies
            except TimeoutError as exc:
                raise TimedOut(f"the picture took longer than {self._session_timeout_s:g} s") from exc
        finally:
            self._engine.close(admitted.session_id)
            self._admission.release_slot(slot)
            logger.info("closed", extra={**log, "seconds": round(loop.time() - started, 3)})


class _Conversation:
    """Who owes whom a frame, and for how long the device has owed one."""

    def __init__(self) -> None:
        self._owed_by_cloud = 0
        self._last_frame_at = monotonic()
        self.over = False

    @property
    def num_owed(self) -> int:
        """Frames that the cloud has yet to send."""
        return self._owed_by_cloud

    @property
    def silence_s(self) -> float:
        """Seconds since the last frame either way; none pass while the cloud owes one."""
        return 0.0 if self._owed_by_cloud else monotonic() - self._last_frame_at

    def heard(self) -> None:
        self._last_frame_at = monotonic()

    def received(self, frame: DeviceFrame) -> None:
        self._owed_by_cloud += 2 if isinstance(frame, Open) else 1  # opened and prefix

    def sent(self, frame: CloudFrame) -> None:
        self._owed_by_cloud -= not (isinstance(frame, Verdict) and frame.partial)
        self._last_frame_at = monotonic()
        self.over = isinstance(frame, Summary)


async def _next(replies: Replies) -> CloudFrame:
    frame = await replies.get()
    if isinstance(frame, CiarError):
        raise frame
    return frame
