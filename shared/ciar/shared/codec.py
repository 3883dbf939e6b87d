"""Between our types and the wire. The only code, with the two RPC edges, that sees protobuf messages.

Decoding checks the form of every field (lengths, masks, finiteness, ranges) and raises InvalidRequest with the field's
name; whether a value fits a model or a session is the receiver's business.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pydantic import ValidationError

from ciar.shared.errors import InvalidRequest
from ciar.shared.tree import children
from ciar.shared.types import (
    Acceptance,
    Block,
    Classic,
    CloudFrame,
    Correction,
    Cost,
    Coupled,
    DeviceFrame,
    Draft,
    Features,
    Finish,
    Lantern,
    Laws,
    Limits,
    Mask,
    Open,
    Opened,
    Sampling,
    Summary,
    Tokens,
    TreeDraft,
    Verdict,
    Written,
)
from ciar.v1 import service_pb2 as pb


def encode_device_frame(frame: DeviceFrame) -> pb.CollaborateRequest:
    """A frame of the device as a message."""
    match frame:
        case Draft(epoch, block):
            return pb.CollaborateRequest(draft=pb.Draft(epoch=epoch, block=encode_block(block)))
        case Open():
            return pb.CollaborateRequest(
                open=pb.Open(
                    prompt=frame.prompt,
                    sampling=encode_sampling(frame.sampling),
                    num_prefix_tokens=frame.num_prefix_tokens,
                    file_digests=frame.file_digests,
                    history=encode_block(frame.history),
                    acceptance=_encode_acceptance(frame.acceptance),
                    carry_on=frame.carry_on,
                )
            )
        case TreeDraft():
            tree = pb.TreeDraft(
                epoch=frame.epoch,
                start=frame.start,
                tokens=frame.tokens.tolist(),
                parents=(frame.parents + 1).tolist(),
            )
            return pb.CollaborateRequest(tree=tree)
        case Finish():
            return pb.CollaborateRequest(finish=pb.Finish())


def decode_device_frame(message: pb.CollaborateRequest, feature_dim: int) -> DeviceFrame:
    """The frame in a message; features have `feature_dim` columns. Raises InvalidRequest."""
    match message.WhichOneof("frame"):
        case "draft":
            return Draft(message.draft.epoch, decode_block(message.draft.block, feature_dim, "draft.block"))
        case "open":
            return Open(
                prompt=message.open.prompt,
                sampling=decode_sampling(message.open.sampling),
                num_prefix_tokens=message.open.num_prefix_tokens,
                file_digests=dict(message.open.file_digests),
                history=decode_block(message.open.history, feature_dim, "open.history"),
                acceptance=_decode_acceptance(message.open),
                carry_on=message.open.carry_on,
            )
        case "tree":
            return _decode_tree(message.tree)
        case "finish":
            return Finish()
        case _:
            raise InvalidRequest("frame: empty; send open, draft, tree or finish")


def encode_cloud_frame(frame: CloudFrame) -> pb.CollaborateResponse:
    """A frame of the cloud as a message."""
    match frame:
        case Verdict():
            return pb.CollaborateResponse(verdict=_encode_verdict(frame))
        case Written():
            return pb.CollaborateResponse(
                prefix=pb.Prefix(
                    start=frame.start,
                    tokens=frame.tokens,
                    near_ties=frame.near_ties,
                    cost=_encode_cost(frame.cost),
                )
            )
        case Opened(session_id, condition):
            return pb.CollaborateResponse(opened=pb.Opened(session_id=session_id, condition=condition))
        case Summary():
            return pb.CollaborateResponse(
                summary=pb.Summary(
                    cost=_encode_cost(frame.cost),
                    num_prefix_tokens=frame.num_prefix_tokens,
                    num_drafts=frame.num_drafts,
                    num_stale_drafts=frame.num_stale_drafts,
                    num_asked=frame.num_asked,
                    num_corrections=frame.num_corrections,
                )
            )


def decode_cloud_frame(message: pb.CollaborateResponse) -> CloudFrame:
    """The frame in a message. Raises InvalidRequest if there is none."""
    match message.WhichOneof("frame"):
        case "verdict":
            return _decode_verdict(message.verdict)
        case "prefix":
            return _decode_written(message.prefix)
        case "opened":
            return Opened(message.opened.session_id, tuple(message.opened.condition))
        case "summary":
            summary = message.summary
            return Summary(
                cost=_decode_cost(summary.cost),
                num_prefix_tokens=summary.num_prefix_tokens,
                num_drafts=summary.num_drafts,
                num_stale_drafts=summary.num_stale_drafts,
                num_asked=summary.num_asked,
                num_corrections=summary.num_corrections,
            )
        case _:
            raise InvalidRequest("frame: empty, or of a later contract; update the client")


def encode_written(written: Written) -> pb.GenerateResponse:
    """A part of a cloud-only picture as a message."""
    return pb.GenerateResponse(
        start=written.start,
        tokens=written.tokens,
        near_ties=written.near_ties,
        cost=_encode_cost(written.cost),
    )


def decode_written(message: pb.GenerateResponse) -> Written:
    """A part of a cloud-only picture."""
    return _decode_written(message)


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
        max_block_tokens=limits.max_block_tokens,
        max_in_flight=limits.max_in_flight,
        idle_timeout_ms=limits.idle_timeout_ms,
        max_prompt_bytes=limits.max_prompt_bytes,
    )


def decode_limits(message: pb.Limits) -> Limits:
    return Limits(message.max_block_tokens, message.max_in_flight, message.idle_timeout_ms, message.max_prompt_bytes)


def encode_block(block: Block) -> pb.Block:
    return pb.Block(
        start=block.start,
        tokens=block.tokens.tolist(),
        asked_mask=_pack(block.asked),
        featured_mask=_pack(block.featured),
        features=block.features.astype("<f2", copy=False).tobytes(),
        laws=b"" if block.laws is None else block.laws.astype("<f2", copy=False).tobytes(),
    )


def decode_block(message: pb.Block, feature_dim: int, name: str) -> Block:
    """A block whose masks and features fit its tokens. Raises InvalidRequest that names the field."""
    tokens = np.fromiter(message.tokens, np.int64, len(message.tokens))
    asked_mask, featured_mask = message.asked_mask, message.featured_mask
    asked = _to_bits(asked_mask, len(tokens), f"{name}.asked_mask")
    featured = _to_bits(featured_mask, len(tokens), f"{name}.featured_mask")
    if asked & featured:
        raise InvalidRequest(f"{name}.featured_mask: a token that is asked about has no feature")
    features = _decode_features(message.features, featured.bit_count(), feature_dim, f"{name}.features")
    laws = _decode_laws(message.laws, asked.bit_count(), f"{name}.laws")
    return Block(
        message.start, tokens, _unpack(asked_mask, len(tokens)), _unpack(featured_mask, len(tokens)), features, laws
    )


def _decode_features(data: bytes, num_rows: int, feature_dim: int, name: str) -> Features:
    expected = num_rows * feature_dim * 2
    if len(data) != expected:
        raise InvalidRequest(
            f"{name}: {len(data)} bytes; {num_rows} featured tokens of {feature_dim} float16 need {expected}"
        )
    features = np.frombuffer(data, "<f2").reshape(num_rows, feature_dim)
    if not np.isfinite(features).all():
        raise InvalidRequest(f"{name}: NaN or infinity in it")
    return features


def _decode_laws(data: bytes, num_rows: int, name: str) -> Laws | None:
    """As many columns as there are values for; whether a row fits the vocabulary is the receiver's business."""
    if not data:
        return None
    if not num_rows or len(data) % (2 * num_rows):
        raise InvalidRequest(f"{name}: {len(data)} bytes for {num_rows} asked tokens; one row of float16 each")
    laws = np.frombuffer(data, "<f2").reshape(num_rows, -1)
    if not np.isfinite(laws).all():
        raise InvalidRequest(f"{name}: NaN or infinity in it")
    return laws


def _decode_tree(message: pb.TreeDraft) -> TreeDraft:
    """A tree whose parents come before their children, and whose siblings differ. Raises InvalidRequest."""
    tokens, parents = to_tokens(message.tokens), to_tokens(message.parents) - 1
    if len(parents) != len(tokens):
        raise InvalidRequest(f"tree.parents: {len(parents)} for {len(tokens)} tokens; one each")
    if (late := np.flatnonzero(parents >= np.arange(len(parents)))).size:
        raise InvalidRequest(f"tree.parents: that of node {late[0]} does not come before it")
    if len(children(tokens.tolist(), parents.tolist())) < len(tokens):
        raise InvalidRequest("tree.tokens: two siblings with the same token; leave one out")
    return TreeDraft(message.epoch, message.start, tokens, parents)


def _encode_acceptance(acceptance: Acceptance) -> pb.Acceptance | None:
    """None for the default, so that the message is the one that servers have always known."""
    match acceptance:
        case Coupled():
            return None
        case Classic():
            return pb.Acceptance(classic=pb.Classic())
        case Lantern(num_neighbours, max_mass):
            return pb.Acceptance(lantern=pb.Lantern(num_neighbours=num_neighbours, max_mass=max_mass))


def _decode_acceptance(message: pb.Open) -> Acceptance:
    if not message.HasField("acceptance"):
        return Coupled()
    match message.acceptance.WhichOneof("rule"):
        case "classic":
            return Classic()
        case "lantern":
            lantern = message.acceptance.lantern
            if not 0 <= lantern.max_mass <= 1:
                raise InvalidRequest(f"open.acceptance.lantern.max_mass: must be in [0, 1] (got {lantern.max_mass:g})")
            return Lantern(lantern.num_neighbours, lantern.max_mass)
        case _:
            raise InvalidRequest("open.acceptance: empty, or of a later contract; send classic or lantern")


def _pack(mask: Mask) -> bytes:
    data = np.packbits(mask, bitorder="little").tobytes()
    return data if any(data) else b""


def _to_bits(data: bytes, num_tokens: int, name: str) -> int:
    """A mask as one number, bit i for token i: checked and counted without an array. Raises InvalidRequest."""
    if data and len(data) != -(-num_tokens // 8):
        raise InvalidRequest(f"{name}: {len(data)} bytes for {num_tokens} tokens; one bit a token, or none at all")
    bits = int.from_bytes(data, "little")
    if bits >> num_tokens:
        raise InvalidRequest(f"{name}: bits set past the last token")
    return bits


def _unpack(data: bytes, num_tokens: int) -> Mask:
    """(n,) of a mask whose length is right; none at all is all False."""
    if not data:
        return np.zeros(num_tokens, np.bool_)
    return np.unpackbits(np.frombuffer(data, np.uint8), count=num_tokens, bitorder="little").view(np.bool_)


def _encode_cost(cost: Cost) -> pb.Cost:
    return pb.Cost(forward_ns=cost.forward_ns, queue_ns=cost.queue_ns, num_passes=cost.num_passes)


def _decode_cost(message: pb.Cost) -> Cost:
    return Cost(message.forward_ns, message.queue_ns, message.num_passes)


def _encode_verdict(verdict: Verdict) -> pb.Verdict:
    correction = None
    if (c := verdict.correction) is not None:
        correction = pb.Correction(position=c.position, tokens=c.tokens, next_epoch=c.next_epoch)
    return pb.Verdict(
        epoch=verdict.epoch,
        stale=verdict.stale,
        verified_through=verdict.verified_through,
        correction=correction,
        near_ties=verdict.near_ties,
        cost=_encode_cost(verdict.cost),
        partial=verdict.partial,
    )


def _decode_verdict(message: pb.Verdict) -> Verdict:
    correction = None
    if message.HasField("correction"):
        if not message.correction.tokens:
            raise InvalidRequest("verdict.correction.tokens: empty")
        correction = Correction(
            message.correction.position, tuple(message.correction.tokens), message.correction.next_epoch
        )
    return Verdict(
        epoch=message.epoch,
        verified_through=message.verified_through,
        correction=correction,
        stale=message.stale,
        near_ties=tuple(message.near_ties),
        cost=_decode_cost(message.cost),
        partial=message.partial,
    )


def _decode_written(message: pb.Prefix | pb.GenerateResponse) -> Written:
    return Written(message.start, tuple(message.tokens), tuple(message.near_ties), _decode_cost(message.cost))


def to_tokens(values: Iterable[int]) -> Tokens:
    """Token ids as an array: int64 (n,)."""
    return np.array(list(values), np.int64)
