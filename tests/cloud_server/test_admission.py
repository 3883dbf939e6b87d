"""Admission costs nothing, names the field, and counts the slots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ciar.cloud_server.admission import Admission
from ciar.shared.bundle import load_manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import Busy, InvalidRequest, PairMismatch, Unavailable
from ciar.shared.types import Draft, Limits, Open, Sampling, Verify

DIGEST = "ab" * 32


@pytest.fixture
def admission(tiny_bundle: Path) -> Admission:
    captions = CaptionVocabulary.load(tiny_bundle / "captions.json")
    limits = Limits(max_prompt_bytes=40, max_window=16)
    return Admission(
        load_manifest(tiny_bundle), captions, limits, bundle_digest=DIGEST, max_sessions=2, retry_after_ms=77
    )


def request(**fields: object) -> Open:
    good = {
        "prompt": "red heart",
        "sampling": Sampling(seed=3),
        "bundle_digest": DIGEST,
        "verify": Verify.MARKED,
        "num_prefix_tokens": 2,
        "max_window": 0,
        "history": np.zeros(0, np.int64),
    }
    return Open(**(good | fields))  # type: ignore[arg-type]


def draft(tokens: list[int]) -> Draft:
    return Draft(1, 0, np.array(tokens, np.int64), np.ones(len(tokens), np.bool_))


def test_a_good_open_is_admitted(admission: Admission) -> None:
    admitted = admission.admit(request(history=np.array([5, 6, 63])))
    assert admitted.condition.tolist() == [1, 7, 0, 0]
    assert (admitted.verify, admitted.num_prefix_tokens) == (Verify.MARKED, 2)
    assert admitted.history.tolist() == [5, 6, 63]
    assert admitted.sampling == Sampling(seed=3)


@pytest.mark.parametrize(("asked", "granted"), [(0, 16), (1, 1), (16, 16), (17, 16), (2**32 - 1, 16)])
def test_the_window_is_the_requests_up_to_the_servers(admission: Admission, asked: int, granted: int) -> None:
    assert admission.admit(request(max_window=asked)).max_window == granted


def test_session_ids_differ(admission: Admission) -> None:
    assert len({admission.admit(request()).session_id for _ in range(50)}) == 50


@pytest.mark.parametrize("num_prefix_tokens", [0, 36])
def test_every_prefix_up_to_the_whole_picture_is_good(admission: Admission, num_prefix_tokens: int) -> None:
    assert admission.admit(request(num_prefix_tokens=num_prefix_tokens)).num_prefix_tokens == num_prefix_tokens


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"num_prefix_tokens": 37}, r"^open\.num_prefix_tokens: 37; the picture has 36 tokens"),
        ({"history": np.array([1, 64])}, r"^open\.history: token 64 is outside the vocabulary of 64"),
        ({"history": np.zeros(37, np.int64)}, r"^open\.history: 37 tokens"),
        ({"prompt": "red " * 10 + "h"}, r"^prompt: 41 bytes; at most 40"),
        ({"prompt": "é" * 21}, r"^prompt: 42 bytes; at most 40"),
        ({"prompt": "purple"}, r"^prompt: unknown word 'purple'"),
    ],
)
def test_a_bad_open_names_its_field(admission: Admission, fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        admission.admit(request(**fields))


@pytest.mark.parametrize("digest", ["", "0" * 64])
def test_another_bundle_is_refused_by_what_is_served(admission: Admission, digest: str) -> None:
    with pytest.raises(PairMismatch, match=r"^open\.bundle_digest: .*this server serves tiny 0 \(abababababab"):
        admission.admit(request(bundle_digest=digest))


def test_draft_tokens_are_checked_against_the_vocabulary(admission: Admission) -> None:
    admission.check_draft(draft([0, 63]))
    admission.check_draft(draft([]))
    with pytest.raises(InvalidRequest, match=r"^draft\.tokens: token 64"):
        admission.check_draft(draft([0, 64]))


def test_slots_are_counted_and_come_back(admission: Admission) -> None:
    first, second = admission.acquire_slot(), admission.acquire_slot()
    assert {first, second} == {0, 1}
    assert admission.num_sessions == 2
    with pytest.raises(Busy, match="all 2 sessions are taken") as caught:
        admission.acquire_slot()
    assert caught.value.retry_after_ms == 77
    admission.release_slot(first)
    assert admission.num_sessions == 1
    assert admission.acquire_slot() == first


def test_draining_admits_nobody_and_does_not_say_busy(admission: Admission) -> None:
    admission.acquire_slot()
    admission.drain()
    with pytest.raises(Unavailable, match="shutting down"):
        admission.acquire_slot()
    assert admission.num_sessions == 1
