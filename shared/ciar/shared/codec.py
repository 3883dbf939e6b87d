"""Between our types and the wire. The only code, with the two RPC edges, that sees protobuf messages.

Decoding checks the form of every field (lengths, masks, finiteness, ranges) and raises InvalidRequest with the field's
name; whether a value fits a model or a session is the receiver's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import ValidationError

from ciar.shared.errors import InvalidRequest
from ciar.shared.types import (
    CloudFrame,
    Cost,
    DeviceFrame,
    Draft,
    Finish,
    Limits,
    Mask,
    Open,
    Opened,
    Sampling,
    Summary,
    Tokens,
    Verdict,
    Verify,
)
from ciar.v1 import service_pb2 as pb

MAX_TOKENS = 2**16
"""Of one list in a message; no picture has more, and nothing longer is converted."""

_VERIFY = {Verify.ALL: pb.VERIFY_ALL, Verify.MARKED: pb.VERIFY_MARKED}
_VERIFY_BACK = {value: key for key, value in _VERIFY.items()}


def encode_device_frame(frame: DeviceFrame) -> pb.GenerateRequest:
    """A frame of the device as a message."""
    match frame:
        case Draft():
            draft = pb.Draft(
                seq=frame.seq,
                start=frame.start,
                tokens=frame.tokens.tolist(),
                verify_mask=_pack(frame.to_verify),
                num_verdicts=frame.num_verdicts,
            )
            return pb.GenerateRequest(draft=draft)
        case Open():
            return pb.GenerateRequest(open=_encode_open(frame))
        case Finish():
            return pb.GenerateRequest(finish=pb.Finish())


def decode_device_frame(message: pb.GenerateRequest) -> DeviceFrame:
    """The frame in a message. Raises InvalidRequest that names the field."""
    match message.WhichOneof("frame"):
        case "draft":
            draft = message.draft
            tokens = to_tokens(draft.tokens, "draft.tokens")
            return Draft(
                seq=draft.seq,
                start=draft.start,
                tokens=tokens,
                to_verify=_unpack(draft.verify_mask, len(tokens), "draft.verify_mask"),
                num_verdicts=draft.num_verdicts,
            )
        case "open":
            return _decode_open(message.open)
        case "finish":
            return Finish()
        case _:
            raise InvalidRequest("frame: empty; send open, draft or finish")


def encode_cloud_frame(frame: CloudFrame) -> pb.GenerateResponse:
    """A frame of the cloud as a message."""
    match frame:
        case Verdict():
            verdict = pb.Verdict(
                applied_seq=frame.applied_seq,
                start=frame.start,
                tokens=frame.tokens,
                num_verified=frame.num_verified,
                near_ties=frame.near_ties,
                cost=_encode_cost(frame.cost),
                waiting=frame.waiting,
            )
            return pb.GenerateResponse(verdict=verdict)
        case Opened(session_id, condition):
            return pb.GenerateResponse(opened=pb.Opened(session_id=session_id, condition=condition))
        case Summary():
            summary = pb.Summary(
                cost=_encode_cost(frame.cost),
                num_drafts=frame.num_drafts,
                num_forks=frame.num_forks,
                num_verified=frame.num_verified,
                num_rejections=frame.num_rejections,
            )
            return pb.GenerateResponse(summary=summary)


def decode_cloud_frame(message: pb.GenerateResponse) -> CloudFrame:
    """The frame in a message. Raises InvalidRequest if there is none, or it makes no sense."""
    match message.WhichOneof("frame"):
        case "verdict":
            return _decode_verdict(message.verdict)
        case "opened":
            return Opened(message.opened.session_id, tuple(message.opened.condition))
        case "summary":
            summary = message.summary
            return Summary(
                cost=_decode_cost(summary.cost),
                num_drafts=summary.num_drafts,
                num_forks=summary.num_forks,
                num_verified=summary.num_verified,
                num_rejections=summary.num_rejections,
            )
        case _:
            raise InvalidRequest("frame: empty, or of a later contract; update the client")


def _encode_open(frame: Open) -> pb.Open:
    return pb.Open(
        prompt=frame.prompt,
        sampling=encode_sampling(frame.sampling),
        bundle_digest=frame.bundle_digest,
        verify=_VERIFY[frame.verify],
        num_prefix_tokens=frame.num_prefix_tokens,
        max_window=frame.max_window,
        history=frame.history.tolist(),
    )


def _decode_open(message: pb.Open) -> Open:
    if message.verify not in _VERIFY_BACK:
        raise InvalidRequest("open.verify: not set, or of a later contract; send VERIFY_ALL or VERIFY_MARKED")
    return Open(
        prompt=message.prompt,
        sampling=decode_sampling(message.sampling),
        bundle_digest=message.bundle_digest,
        verify=_VERIFY_BACK[message.verify],
        num_prefix_tokens=message.num_prefix_tokens,
        max_window=message.max_window,
        history=to_tokens(message.history, "open.history"),
    )


def _decode_verdict(message: pb.Verdict) -> Verdict:
    if message.num_verified > len(message.tokens):
        raise InvalidRequest(f"verdict.num_verified: {message.num_verified} of {len(message.tokens)} tokens")
    return Verdict(
        applied_seq=message.applied_seq,
        start=message.start,
        tokens=tuple(message.tokens),
        num_verified=message.num_verified,
        near_ties=tuple(message.near_ties),
        cost=_decode_cost(message.cost),
        waiting=message.waiting,
    )


def encode_sampling(sampling: Sampling) -> pb.Sampling:
    return pb.Sampling(**sampling.model_dump())


def decode_sampling(message: pb.Sampling) -> Sampling:
    """Sampling values in their ranges. Raises InvalidRequest that names the value out of range."""
    try:
        return Sampling(
            seed=message.seed,
            temperature=message.temperature,
            top_k=message.top_k,
            top_p=message.top_p,
            guidance=message.guidance,
        )
    except ValidationError as exc:
        raise sampling_error(exc) from exc


def sampling_error(error: ValidationError) -> InvalidRequest:
    """The first fault of sampling values as a sentence."""
    problem = error.errors()[0]
    return InvalidRequest(f"sampling.{problem['loc'][0]}: {problem['msg']} (got {problem['input']!r})")


def encode_limits(limits: Limits) -> pb.Limits:
    return pb.Limits(
        max_window=limits.max_window,
        max_in_flight=limits.max_in_flight,
        idle_timeout_ms=limits.idle_timeout_ms,
        max_prompt_bytes=limits.max_prompt_bytes,
    )


def decode_limits(message: pb.Limits) -> Limits:
    return Limits(message.max_window, message.max_in_flight, message.idle_timeout_ms, message.max_prompt_bytes)


def to_tokens(values: Sequence[int], name: str = "tokens") -> Tokens:
    """Token ids as an array: int64 (n,). Raises InvalidRequest for a list that is longer than any picture."""
    if len(values) > MAX_TOKENS:
        raise InvalidRequest(f"{name}: {len(values)} tokens; at most {MAX_TOKENS} are read")
    return np.fromiter(values, np.int64, len(values))


def _pack(mask: Mask) -> bytes:
    data = np.packbits(mask, bitorder="little").tobytes()
    return data if any(data) else b""


def _unpack(data: bytes, num_tokens: int, name: str) -> Mask:
    """(n,) of a mask; none at all is all False. Raises InvalidRequest."""
    if not data:
        return np.zeros(num_tokens, np.bool_)
    if len(data) != -(-num_tokens // 8):
        raise InvalidRequest(f"{name}: {len(data)} bytes for {num_tokens} tokens; one bit a token, or none at all")
    if num_tokens % 8 and data[-1] >> num_tokens % 8:
        raise InvalidRequest(f"{name}: bits set past the last token")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=num_tokens, bitorder="little").view(np.bool_)


def _encode_cost(cost: Cost) -> pb.Cost:
    return pb.Cost(
        forward_ns=cost.forward_ns, queue_ns=cost.queue_ns, num_passes=cost.num_passes, num_rows=cost.num_rows
    )


def _decode_cost(message: pb.Cost) -> Cost:
    return Cost(message.forward_ns, message.queue_ns, message.num_passes, message.num_rows)
