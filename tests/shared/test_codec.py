"""Every frame survives the wire, and every malformed field is refused by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ciar.shared import codec
from ciar.shared.errors import InvalidRequest
from ciar.shared.types import (
    Block,
    Classic,
    Correction,
    Cost,
    Coupled,
    Draft,
    Finish,
    Lantern,
    Limits,
    Open,
    Opened,
    Sampling,
    Summary,
    TreeDraft,
    Verdict,
    Written,
)
from ciar.v1 import service_pb2 as pb

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
R, V = 3, 4


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    size = draw(st.integers(0, 20))
    fate = draw(arrays(np.int8, size, elements=st.integers(0, 2)))  # 0 nothing, 1 asked, 2 featured
    finite = st.floats(width=16, allow_nan=False, allow_infinity=False)
    num_asked = int((fate == 1).sum())
    laws = draw(st.none() | arrays(np.float16, (num_asked, V), elements=finite)) if num_asked else None
    return Block(
        start=draw(U32),
        tokens=draw(arrays(np.int64, size, elements=U32)),
        asked=fate == 1,
        featured=fate == 2,
        features=draw(arrays(np.float16, (int((fate == 2).sum()), R), elements=finite)),
        laws=laws,
    )


SAMPLINGS = st.builds(
    Sampling,
    seed=U64,
    temperature=st.floats(0, 10, width=32),
    top_k=U32,
    top_p=st.floats(2**-20, 1, width=32),
    guidance=st.floats(1, 20, width=32),
)
ACCEPTANCES = st.one_of(st.just(Coupled()), st.just(Classic()), st.builds(Lantern, U32, st.floats(0, 1, width=32)))
COSTS = st.builds(Cost, U64, U64, U32)
IDS = st.lists(U32, max_size=9).map(tuple)
DEVICE_FRAMES = st.one_of(
    st.builds(
        Open,
        prompt=st.text(max_size=30),
        sampling=SAMPLINGS,
        num_prefix_tokens=U32,
        file_digests=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
        history=blocks(),
        acceptance=ACCEPTANCES,
        carry_on=st.booleans(),
    ),
    st.builds(Draft, U32, blocks()),
    st.builds(
        lambda epoch, start, numbers: TreeDraft(
            epoch,
            start,
            np.arange(len(numbers)),
            np.array([number % (node + 1) - 1 for node, number in enumerate(numbers)], np.int64),
        ),
        U32,
        U32,
        st.lists(U32, max_size=12),
    ),
    st.just(Finish()),
)
CORRECTIONS = st.builds(Correction, U32, st.lists(U32, min_size=1, max_size=4).map(tuple), U32)
CLOUD_FRAMES = st.one_of(
    st.builds(Opened, st.text(max_size=20), IDS),
    st.builds(Written, U32, IDS, IDS, COSTS),
    st.builds(Verdict, U32, U32, st.none() | CORRECTIONS, st.booleans(), IDS, COSTS, st.booleans()),
    st.builds(Summary, COSTS, U32, U32, U32, U32, U32),
)


def plain(value: Any) -> Any:
    """A value in which arrays compare: dataclasses as tuples, arrays as dtype, shape and bytes."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if dataclasses.is_dataclass(value):
        return (type(value), *(plain(getattr(value, f.name)) for f in dataclasses.fields(value)))
    return value


@given(DEVICE_FRAMES)
def test_device_frames_survive_the_wire(frame: Open | Draft | TreeDraft | Finish) -> None:
    data = codec.encode_device_frame(frame).SerializeToString()
    assert plain(codec.decode_device_frame(pb.CollaborateRequest.FromString(data), R)) == plain(frame)


@given(CLOUD_FRAMES)
def test_cloud_frames_survive_the_wire(frame: Opened | Written | Verdict | Summary) -> None:
    data = codec.encode_cloud_frame(frame).SerializeToString()
    assert codec.decode_cloud_frame(pb.CollaborateResponse.FromString(data)) == frame


@given(st.builds(Written, U32, IDS, IDS, COSTS))
def test_written_parts_survive_the_wire(written: Written) -> None:
    data = codec.encode_written(written).SerializeToString()
    assert codec.decode_written(pb.GenerateResponse.FromString(data)) == written


@given(st.builds(Limits, U32, U32, U32, U32))
def test_limits_survive_the_wire(limits: Limits) -> None:
    data = codec.encode_limits(limits).SerializeToString()
    assert codec.decode_limits(pb.Limits.FromString(data)) == limits


def test_features_are_little_endian_rows_in_token_order() -> None:
    block = Block(
        5,
        np.array([7, 8, 9]),
        np.array([False, True, False]),
        np.array([True, False, True]),
        np.array([[1, 2], [3, 4]], np.float16),
    )
    message = codec.encode_block(block)
    assert message.asked_mask == b"\x02"
    assert message.featured_mask == b"\x05"
    assert message.features == np.array([1, 2, 3, 4], "<f2").tobytes()


def test_a_model_without_features_has_none_on_the_wire() -> None:
    block = codec.decode_block(pb.Block(tokens=[1, 2], featured_mask=b"\x01"), 0, "block")
    assert block.features.shape == (1, 0)


def test_the_default_rule_is_not_on_the_wire() -> None:
    """So a server of before understands what a device says by default, and the other way round."""
    frame = Open("x", Sampling(), 0, {}, Block.empty(R))
    message = codec.encode_device_frame(frame)
    assert not message.open.HasField("acceptance")
    decoded = codec.decode_device_frame(message, R)
    assert isinstance(decoded, Open)
    assert decoded.acceptance == Coupled()


def test_laws_are_little_endian_rows_of_the_asked_tokens() -> None:
    none = np.zeros(3, np.bool_)
    asked = np.array([True, False, True])
    laws = np.array([[1, 2], [3, 4]], np.float16)
    block = Block(0, np.array([7, 8, 9]), asked, none, np.zeros((0, R), np.float16), laws)
    assert codec.encode_block(block).laws == np.array([1, 2, 3, 4], "<f2").tobytes()


# ---- malformed -----------------------------------------------------------------------------------------------------


def features(*values: float) -> bytes:
    return np.array(values, "<f2").tobytes()


BAD_BLOCKS = {
    "mask too short": (
        pb.Block(tokens=range(9), asked_mask=b"\xff"),
        "asked_mask: 1 bytes for 9 tokens",
    ),
    "mask too long": (pb.Block(tokens=range(8), asked_mask=b"\xff\x00"), "asked_mask: 2 bytes for 8 tokens"),
    "mask of nothing": (pb.Block(asked_mask=b"\x00"), "asked_mask: 1 bytes for 0 tokens"),
    "asked bits past the end": (pb.Block(tokens=range(7), asked_mask=b"\x80"), "asked_mask: bits set past"),
    "featured mask too short": (pb.Block(tokens=range(17), featured_mask=b"\x01\x00"), "featured_mask: 2 bytes"),
    "featured bits past the end": (
        pb.Block(tokens=range(3), featured_mask=b"\x08", features=features(1, 2, 3)),
        "featured_mask: bits set past",
    ),
    "asked and featured": (
        pb.Block(tokens=[1, 2], asked_mask=b"\x03", featured_mask=b"\x02", features=features(1, 2, 3)),
        "featured_mask: a token that is asked",
    ),
    "too few features": (
        pb.Block(tokens=[1, 2], featured_mask=b"\x03", features=features(1, 2, 3)),
        "features: 6 bytes; 2 featured tokens of 3 float16 need 12",
    ),
    "too many features": (
        pb.Block(tokens=[1, 2], featured_mask=b"\x01", features=features(1, 2, 3, 4, 5, 6)),
        "features: 12 bytes",
    ),
    "half a float": (
        pb.Block(tokens=[1], featured_mask=b"\x01", features=features(1, 2, 3)[:-1]),
        "features: 5 bytes",
    ),
    "features of nobody": (pb.Block(tokens=[1], features=features(1, 2, 3)), "features: 6 bytes"),
    "NaN": (
        pb.Block(tokens=[1], featured_mask=b"\x01", features=features(1, np.nan, 3)),
        "features: NaN or infinity",
    ),
    "laws of nobody": (pb.Block(tokens=[1], laws=features(1, 2)), "laws: 4 bytes for 0 asked tokens"),
    "laws that are no rows": (
        pb.Block(tokens=[1, 2], asked_mask=b"\x03", laws=features(1, 2, 3)),
        "laws: 6 bytes for 2 asked tokens",
    ),
    "half a law": (pb.Block(tokens=[1], asked_mask=b"\x01", laws=features(1, 2)[:-1]), "laws: 3 bytes for 1 asked"),
    "NaN in a law": (
        pb.Block(tokens=[1], asked_mask=b"\x01", laws=features(1, np.nan)),
        "laws: NaN or infinity",
    ),
    "infinity in a law": (
        pb.Block(tokens=[1], asked_mask=b"\x01", laws=features(1, -np.inf)),
        "laws: NaN or infinity",
    ),
    "infinity": (
        pb.Block(tokens=[1], featured_mask=b"\x01", features=features(-np.inf, 2, 3)),
        "features: NaN or infinity",
    ),
}


@pytest.mark.parametrize("case", BAD_BLOCKS)
@pytest.mark.parametrize("where", ["draft.block", "open.history"])
def test_a_malformed_block_names_its_field(case: str, where: str) -> None:
    block, sentence = BAD_BLOCKS[case]
    good = codec.encode_sampling(Sampling())
    if where == "draft.block":
        message = pb.CollaborateRequest(draft=pb.Draft(block=block))
    else:
        message = pb.CollaborateRequest(open=pb.Open(sampling=good, history=block))
    with pytest.raises(InvalidRequest) as caught:
        codec.decode_device_frame(message, R)
    assert str(caught.value).startswith(f"{where}.{sentence}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 10.5),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", -1.0),
        ("top_p", 1.5),
        ("top_p", float("nan")),
        ("guidance", 0.0),
        ("guidance", 0.99),
        ("guidance", 21.0),
        ("guidance", float("nan")),
        ("guidance", float("-inf")),
    ],
)
def test_a_sampling_value_out_of_range_is_named(field: str, value: float) -> None:
    message = codec.encode_sampling(Sampling())
    setattr(message, field, value)
    with pytest.raises(InvalidRequest, match=rf"^sampling\.{field}: ") as caught:
        codec.decode_sampling(message)
    assert "got " in str(caught.value)


def test_sampling_that_was_not_sent_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^sampling\."):
        codec.decode_sampling(pb.Sampling())


@pytest.mark.parametrize(
    ("acceptance", "sentence"),
    [
        (pb.Acceptance(), "open.acceptance: empty, or of a later contract"),
        (
            pb.Acceptance(lantern=pb.Lantern(max_mass=1.5)),
            "open.acceptance.lantern.max_mass: must be in [0, 1] (got 1.5)",
        ),
        (pb.Acceptance(lantern=pb.Lantern(max_mass=-0.1)), "open.acceptance.lantern.max_mass"),
        (pb.Acceptance(lantern=pb.Lantern(max_mass=float("nan"))), "open.acceptance.lantern.max_mass"),
    ],
)
def test_a_rule_that_is_no_rule_is_named(acceptance: pb.Acceptance, sentence: str) -> None:
    good = codec.encode_sampling(Sampling())
    message = pb.CollaborateRequest(open=pb.Open(sampling=good, acceptance=acceptance))
    with pytest.raises(InvalidRequest) as caught:
        codec.decode_device_frame(message, R)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("tokens", "parents", "sentence"),
    [
        ([1, 2], [0], "tree.parents: 1 for 2 tokens"),
        ([1, 2], [0, 2], "tree.parents: that of node 1 does not come before it"),
        ([1], [1], "tree.parents: that of node 0"),
        ([1, 2], [0, 2**32 - 1], "tree.parents: that of node 1"),
        ([1, 1], [0, 0], "tree.tokens: two siblings with the same token"),
        ([3, 1, 2, 1], [0, 1, 1, 1], "tree.tokens: two siblings"),
    ],
)
def test_a_malformed_tree_is_named(tokens: list[int], parents: list[int], sentence: str) -> None:
    message = pb.CollaborateRequest(tree=pb.TreeDraft(tokens=tokens, parents=parents))
    with pytest.raises(InvalidRequest) as caught:
        codec.decode_device_frame(message, R)
    assert str(caught.value).startswith(sentence)


def test_empty_frames_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="frame: empty"):
        codec.decode_device_frame(pb.CollaborateRequest(), R)
    with pytest.raises(InvalidRequest, match="frame: empty"):
        codec.decode_cloud_frame(pb.CollaborateResponse())


def test_a_correction_without_tokens_is_refused() -> None:
    message = pb.CollaborateResponse(verdict=pb.Verdict(correction=pb.Correction(position=3)))
    with pytest.raises(InvalidRequest, match=r"verdict\.correction\.tokens: empty"):
        codec.decode_cloud_frame(message)


def test_to_tokens() -> None:
    tokens = codec.to_tokens(iter([3, 1]))
    assert tokens.dtype == np.int64
    assert tokens.tolist() == [3, 1]
    assert codec.to_tokens([]).shape == (0,)
