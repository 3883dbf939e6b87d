"""Every frame survives the wire, and whatever cannot be a frame names its field."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciar.shared import codec
from ciar.shared.errors import InvalidRequest
from ciar.shared.types import (
    CloudFrame,
    Cost,
    DeviceFrame,
    Draft,
    Finish,
    Limits,
    Open,
    Opened,
    Sampling,
    Summary,
    Verdict,
    Verify,
)
from ciar.v1 import service_pb2 as pb

UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
TOKENS = st.lists(UINT32, max_size=40)
COSTS = st.builds(Cost, UINT64, UINT64, UINT32, UINT32)
SAMPLINGS = st.builds(
    Sampling,
    seed=UINT64,
    temperature=st.floats(0, 10, width=32),
    top_k=UINT32,
    top_p=st.floats(2**-10, 1, width=32),
    guidance=st.floats(1, 20, width=32),
)


def same(one: Any, other: Any) -> bool:
    """Equal, arrays too."""
    first, second = asdict(one), asdict(other)
    return type(one) is type(other) and all(
        np.array_equal(value, second[name]) if isinstance(value, np.ndarray) else value == second[name]
        for name, value in first.items()
    )


def device_trip(frame: DeviceFrame) -> DeviceFrame:
    data = codec.encode_device_frame(frame).SerializeToString()
    return codec.decode_device_frame(pb.GenerateRequest.FromString(data))


def cloud_trip(frame: CloudFrame) -> CloudFrame:
    data = codec.encode_cloud_frame(frame).SerializeToString()
    return codec.decode_cloud_frame(pb.GenerateResponse.FromString(data))


@given(st.text(max_size=20), SAMPLINGS, st.sampled_from(Verify), UINT32, UINT32, TOKENS)
def test_open(
    prompt: str, sampling: Sampling, verify: Verify, num_prefix_tokens: int, max_window: int, history: list[int]
) -> None:
    frame = Open(prompt, sampling, "ab" * 32, verify, num_prefix_tokens, max_window, np.array(history, np.int64))
    assert same(device_trip(frame), frame)


@given(UINT32, UINT32, st.lists(st.tuples(UINT32, st.booleans()), max_size=40), UINT32)
def test_draft(seq: int, start: int, pairs: list[tuple[int, bool]], num_verdicts: int) -> None:
    tokens = np.array([token for token, _ in pairs], np.int64)
    marks = np.array([mark for _, mark in pairs], np.bool_)
    frame = Draft(seq, start, tokens, marks, num_verdicts)
    assert same(device_trip(frame), frame)
    assert frame.end == start + len(pairs)


def test_finish() -> None:
    assert device_trip(Finish()) == Finish()


@given(UINT32, UINT32, TOKENS, st.floats(0, 1), TOKENS, COSTS, st.booleans())
def test_verdict(
    seq: int, start: int, tokens: list[int], share: float, ties: list[int], cost: Cost, waiting: bool
) -> None:
    frame = Verdict(seq, start, tuple(tokens), int(share * len(tokens)), tuple(ties), cost, waiting)
    assert cloud_trip(frame) == frame


@given(COSTS, st.lists(UINT32, min_size=4, max_size=4))
def test_summary(cost: Cost, counts: list[int]) -> None:
    frame = Summary(cost, *counts)
    assert cloud_trip(frame) == frame


def test_opened_and_limits() -> None:
    frame = Opened("id", (1, 0, 3))
    assert cloud_trip(frame) == frame
    limits = Limits(3, 4, 5, 6)
    assert codec.decode_limits(codec.encode_limits(limits)) == limits


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (pb.GenerateRequest(), "frame: empty; send open, draft or finish"),
        (pb.GenerateRequest(open=pb.Open()), "open.verify: not set"),
        (pb.GenerateRequest(open=pb.Open(verify=9)), "open.verify: not set, or of a later contract"),  # type: ignore[arg-type]
        (pb.GenerateRequest(open=pb.Open(verify=1)), "sampling.top_p: "),  # type: ignore[arg-type]
        (pb.GenerateRequest(draft=pb.Draft(tokens=[1] * 70_000)), "draft.tokens: 70000 tokens; at most 65536"),
        (pb.GenerateRequest(draft=pb.Draft(tokens=[1] * 9, verify_mask=b"\1")), "draft.verify_mask: 1 bytes for 9"),
        (pb.GenerateRequest(draft=pb.Draft(tokens=[1], verify_mask=b"\2")), "draft.verify_mask: bits set past"),
        (pb.GenerateRequest(draft=pb.Draft(verify_mask=b"\0")), "draft.verify_mask: 1 bytes for 0 tokens"),
    ],
)
def test_what_is_no_frame_of_a_device_names_its_field(message: pb.GenerateRequest, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        codec.decode_device_frame(message)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (pb.GenerateResponse(), "frame: empty, or of a later contract"),
        (pb.GenerateResponse(verdict=pb.Verdict(num_verified=2, tokens=[1])), "verdict.num_verified: 2 of 1"),
    ],
)
def test_what_is_no_frame_of_a_cloud_names_its_field(message: pb.GenerateResponse, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        codec.decode_cloud_frame(message)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("field", ["temperature", "top_p", "guidance"])
def test_not_a_number_is_named(field: str) -> None:
    message = pb.Sampling(seed=1, temperature=1, top_p=1, guidance=1)
    setattr(message, field, float("nan"))
    with pytest.raises(InvalidRequest, match=f"^sampling.{field}: "):
        codec.decode_sampling(message)
