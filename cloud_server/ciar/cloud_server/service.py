"""The gRPC edge: messages in, messages out; what happens between is the engine's.

Knows the wire, deadlines and vanishing clients. Knows nothing of torch.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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
from ciar.shared.bundle import Manifest
from ciar.shared.errors import (
    CiarError,
    InternalError,
    InvalidRequest,
    NotFound,
    ProtocolError,
    TimedOut,
    trailing_metadata,
)
from ciar.shared.types import CloudFrame, DeviceFrame, Draft, Finish, Limits, Open, Summary
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
        manifest_json: str,
        limits: Limits,
        admission: Admission,
        engine: Engine,
        make_session: Callable[[Admitted, int, Reply], PassSession],
        version: str,
        idle_timeout_s: float,
        session_timeout_s: float,
    ) -> None:
        self._bundle, self._manifest, self._limits = bundle, manifest, limits
        self._manifest_json = manifest_json
        self._admission, self._engine, self._version = admission, engine, version
        self._make_session = make_session
        self._idle_timeout_s, self._session_timeout_s = idle_timeout_s, session_timeout_s

    @domain_errors
    async def GetModelInfo(  # noqa: N802
        self, _request: pb.GetModelInfoRequest, _context: grpc.aio.ServicerContext
    ) -> pb.GetModelInfoResponse:
        return pb.GetModelInfoResponse(
            manifest_json=self._manifest_json,
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
            raise ProtocolError("frame: a stream begins with open")
        admitted = self._admission.admit(opening)
        async with self._session(admitted, conversation, context) as replies:
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
                    raise ProtocolError("frame: a second open; a stream has one")
                if isinstance(frame, Draft):
                    self._admission.check_draft(frame)
                    self._check_in_flight(frame, conversation)
                if isinstance(frame, Finish):
                    await self._expect_end(context, conversation)
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

    def _check_in_flight(self, draft: Draft, conversation: _Conversation) -> None:
        most = self._limits.max_in_flight
        conversation.submitted_seq = draft.seq
        if draft.seq > conversation.applied_seq + most:
            raise ProtocolError(f"draft.seq: more than {most} drafts unanswered; wait for verdicts")

    async def _read(self, context: grpc.aio.ServicerContext, conversation: _Conversation) -> DeviceFrame:
        """The device's next frame. Raises EOFError at the end of the stream."""
        try:
            request = await context.read()
        except DecodeError as exc:
            raise InvalidRequest("frame: not a message of this contract (ciar.v1)") from exc
        conversation.heard()
        if request is grpc.aio.EOF:
            raise EOFError
        return codec.decode_device_frame(request)

    async def _end_when_silent(self, conversation: _Conversation, replies: Replies) -> None:
        """End the conversation when the device has owed a frame for too long: one timer for all of its frames."""
        while (left_s := self._idle_timeout_s - conversation.silence_s) > 0:
            await asyncio.sleep(left_s)
        replies.put_nowait(self._silence())

    def _silence(self) -> TimedOut:
        return TimedOut(f"no frame for {self._idle_timeout_s:g} s; open a new stream, with what is final as history")

    async def _expect_end(self, context: grpc.aio.ServicerContext, conversation: _Conversation) -> None:
        """Wait for the device's end of stream, the only thing that may follow finish."""
        try:
            await self._read(context, conversation)
        except EOFError:
            return
        raise ProtocolError("frame: nothing may follow finish; end the stream, and open a new one for more")

    @asynccontextmanager
    async def _session(
        self, admitted: Admitted, conversation: _Conversation, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Replies]:
        """A session of the engine for as long as the block runs, whatever ends it."""
        log = {"session": admitted.session_id, "verify": admitted.verify.name.lower()}
        slot = self._admission.acquire_slot()
        loop = asyncio.get_running_loop()
        replies: Replies = asyncio.Queue()
        logger.info("opened", extra={**log, "slot": slot, "history_tokens": len(admitted.history)})
        started = loop.time()

        def make(slot: int, reply: Reply) -> PassSession:
            conversation.session = self._make_session(admitted, slot, reply)
            return conversation.session

        try:
            self._engine.open(
                admitted.session_id, slot, lambda frame: loop.call_soon_threadsafe(replies.put_nowait, frame), make
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
        self._last_frame_at = monotonic()
        self.session: PassSession | None = None
        self.submitted_seq = 0
        self.over = False

    @property
    def waits_for_device(self) -> bool:
        """Whether the cloud has nothing to do before another frame comes."""
        session = self.session
        return session is not None and session.applied_seq >= self.submitted_seq and not session.has_work

    @property
    def applied_seq(self) -> int:
        """The last Draft that the engine has taken in."""
        return 0 if self.session is None else self.session.applied_seq

    @property
    def silence_s(self) -> float:
        """Seconds since the last frame either way; none pass while the cloud has work."""
        return monotonic() - self._last_frame_at if self.waits_for_device else 0.0

    def heard(self) -> None:
        self._last_frame_at = monotonic()

    def sent(self, frame: CloudFrame) -> None:
        self._last_frame_at = monotonic()
        self.over = isinstance(frame, Summary)


async def _next(replies: Replies) -> CloudFrame:
    frame = await replies.get()
    if isinstance(frame, CiarError):
        raise frame
    return frame
