"""Each error has a status, and the status comes back as the error."""

from __future__ import annotations

import inspect

import grpc
import pytest

from ciar.shared import errors
from ciar.shared.errors import (
    Busy,
    CiarError,
    InternalError,
    InvalidRequest,
    PairMismatch,
    from_status,
    trailing_metadata,
)

LEAVES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, CiarError) and value is not CiarError
]


def test_there_are_leaves() -> None:
    assert len(LEAVES) >= 8


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_comes_back_as_itself(leaf: type[CiarError]) -> None:
    error = leaf("what is wrong")
    back = from_status(leaf.code, str(error), dict(trailing_metadata(error)))
    assert type(back) is leaf
    assert str(back) == "what is wrong"
    assert back.code is error.code is not grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize("leaf", LEAVES)
def test_the_tree_in_the_docstring_is_the_tree(leaf: type[CiarError]) -> None:
    (line,) = (line for line in (errors.__doc__ or "").splitlines() if f"─ {leaf.__name__} " in line)
    assert f" {leaf.code.name} " in line


def test_the_hint_of_busy_travels() -> None:
    metadata = dict(trailing_metadata(Busy("full", retry_after_ms=2500)))
    assert metadata["grpc-retry-pushback-ms"] == "2500"
    back = from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", metadata)
    assert isinstance(back, Busy)
    assert back.retry_after_ms == 2500


@pytest.mark.parametrize("hint", ["", "-1", "soon"])
def test_a_hint_that_is_no_number_becomes_the_default(hint: str) -> None:
    metadata = {"ciar-error": "Busy", "grpc-retry-pushback-ms": hint}
    back = from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", metadata)
    assert isinstance(back, Busy)
    assert back.retry_after_ms == 1000


def test_only_busy_has_a_hint() -> None:
    assert "grpc-retry-pushback-ms" not in dict(trailing_metadata(InvalidRequest("no")))


def test_a_status_without_our_metadata_finds_its_leaf() -> None:
    assert type(from_status(grpc.StatusCode.INVALID_ARGUMENT, "x", {})) is InvalidRequest
    assert type(from_status(grpc.StatusCode.UNAVAILABLE, "x", {})) is errors.Unavailable
    assert type(from_status(grpc.StatusCode.DEADLINE_EXCEEDED, "x", {})) is errors.TimedOut


def test_two_leaves_of_one_status_are_told_apart() -> None:
    metadata = dict(trailing_metadata(PairMismatch("x")))
    assert type(from_status(grpc.StatusCode.FAILED_PRECONDITION, "x", metadata)) is PairMismatch
    assert type(from_status(grpc.StatusCode.FAILED_PRECONDITION, "x", {})) is errors.ProtocolError


def test_an_unknown_status_is_an_internal_error_that_names_it() -> None:
    back = from_status(grpc.StatusCode.UNIMPLEMENTED, "no such method", {})
    assert type(back) is InternalError
    assert str(back) == "UNIMPLEMENTED: no such method"


def test_an_invalid_request_is_also_a_value_error() -> None:
    assert isinstance(InvalidRequest("x"), ValueError)


def test_committed_is_empty_until_the_client_sets_it() -> None:
    assert CiarError("x").committed == ()


def test_grpcs_own_size_limit_is_not_a_full_server() -> None:
    back = from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max", {})
    assert type(back) is errors.ProtocolError
    assert "larger than max" in str(back)
