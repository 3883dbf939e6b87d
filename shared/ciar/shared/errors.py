"""The errors of both sides, each with its gRPC status.

CiarError
├── InvalidRequest   INVALID_ARGUMENT     a value is wrong; the sentence names the field and how to mend it
├── ProtocolError    FAILED_PRECONDITION  a frame came that has no place here
├── PairMismatch     FAILED_PRECONDITION  device and cloud hold different bundles
├── NotFound         NOT_FOUND            no such file
├── Busy             RESOURCE_EXHAUSTED   full; come back after `retry_after_ms`
├── TimedOut         DEADLINE_EXCEEDED    a wait has ended
├── Unavailable      UNAVAILABLE          no server, or it is going away; another may take over
└── InternalError    INTERNAL             our own fault
"""

from __future__ import annotations

from typing import ClassVar

import grpc

ERROR_KEY = "ciar-error"
"""Trailing metadata: the class name, since two classes may share a status."""

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailing metadata: gRPC's own retry hint (proposal A6)."""


class CiarError(Exception):
    """Base of all errors of this project; `str()` is one sentence for the user."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    committed: tuple[int, ...] = ()
    """Tokens that were decided when a generation failed (set by the client)."""


class InvalidRequest(CiarError, ValueError):
    code = grpc.StatusCode.INVALID_ARGUMENT


class ProtocolError(CiarError):
    code = grpc.StatusCode.FAILED_PRECONDITION


class PairMismatch(CiarError):
    code = grpc.StatusCode.FAILED_PRECONDITION


class NotFound(CiarError):
    code = grpc.StatusCode.NOT_FOUND


class Busy(CiarError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, message: str, retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class TimedOut(CiarError):
    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unavailable(CiarError):
    code = grpc.StatusCode.UNAVAILABLE


class InternalError(CiarError):
    code = grpc.StatusCode.INTERNAL


_LEAVES: tuple[type[CiarError], ...] = (
    InvalidRequest, ProtocolError, PairMismatch, NotFound, Busy, TimedOut, Unavailable, InternalError,
)  # fmt: skip
_BY_NAME = {leaf.__name__: leaf for leaf in _LEAVES}
_BY_CODE = {leaf.code: leaf for leaf in reversed(_LEAVES)}


def trailing_metadata(error: CiarError) -> tuple[tuple[str, str], ...]:
    """What travels beside status and sentence."""
    pairs = [(ERROR_KEY, type(error).__name__)]
    if isinstance(error, Busy):
        pairs.append((PUSHBACK_KEY, str(error.retry_after_ms)))
    return tuple(pairs)


def from_status(code: grpc.StatusCode, sentence: str, metadata: dict[str, str]) -> CiarError:
    """The error that a server's status stands for."""
    leaf = _BY_NAME.get(metadata.get(ERROR_KEY, ""), _BY_CODE.get(code, InternalError))
    if leaf is Busy and ERROR_KEY not in metadata:
        leaf = ProtocolError  # gRPC's own, for a message over the size limit: coming back would not help
    if leaf is Busy:
        hint = metadata.get(PUSHBACK_KEY, "")
        return Busy(sentence, int(hint) if hint.isdigit() else 1000)
    return leaf(sentence if leaf.code is code else f"{code.name}: {sentence}")
