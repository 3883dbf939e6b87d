"""Admission costs nothing, names the field, and counts the slots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ciar.cloud_server.admission import Admission
from ciar.shared.bundle import Manifest, load_manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import Busy, InvalidRequest, PairMismatch, Unavailable
from ciar.shared.types import Block, Classic, Lantern, Limits, Open, Sampling


@pytest.fixture
def manifest(tiny_bundle: Path) -> Manifest:
    return load_manifest(tiny_bundle)


@pytest.fixture
def admission(tiny_bundle: Path, manifest: Manifest) -> Admission:
    captions = CaptionVocabulary.load(tiny_bundle / "captions.json")
    return Admission(manifest, captions, Limits(max_prompt_bytes=40), max_sessions=2, retry_after_ms=77)


def request(manifest: Manifest, **fields: object) -> Open:
    good = {
        "prompt": "red heart",
        "sampling": Sampling(seed=3),
        "num_prefix_tokens": 2,
        "file_digests": manifest.device_digests(),
        "history": Block.empty(manifest.feature_dim),
    }
    return Open(**(good | fields))  # type: ignore[arg-type]


def history(tokens: list[int], *, start: int = 0, asked: bool = False) -> Block:
    nothing = np.zeros(len(tokens), np.bool_)
    return Block(start, np.array(tokens, np.int64), nothing | asked, nothing, np.zeros((0, 4), np.float16))


def test_a_good_open_is_admitted(admission: Admission, manifest: Manifest) -> None:
    admitted = admission.admit_open(request(manifest, history=history([5, 6, 63])))
    assert admitted.condition.tolist() == [1, 7, 0, 0]
    assert (admitted.write_until, admitted.chunk, admitted.collaborative) == (2, 36, True)
    assert admitted.history.tokens.tolist() == [5, 6, 63]
    assert admitted.sampling == Sampling(seed=3)


def test_a_picture_of_the_cloud_alone_is_written_row_by_row(admission: Admission) -> None:
    admitted = admission.admit_generate("red heart", Sampling(), np.array([1, 2]))
    assert (admitted.write_until, admitted.chunk, admitted.collaborative) == (36, 6, False)
    assert admitted.history.end == 2
    assert not admitted.history.featured.any()


def test_session_ids_differ(admission: Admission, manifest: Manifest) -> None:
    assert len({admission.admit_open(request(manifest)).session_id for _ in range(50)}) == 50


@pytest.mark.parametrize("num_prefix_tokens", [0, 36])
def test_every_prefix_up_to_the_whole_picture_is_good(
    admission: Admission, manifest: Manifest, num_prefix_tokens: int
) -> None:
    assert admission.admit_open(request(manifest, num_prefix_tokens=num_prefix_tokens)).write_until == num_prefix_tokens


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"num_prefix_tokens": 37}, r"^open\.num_prefix_tokens: 37; the picture has 36 tokens"),
        ({"history": history([1], start=1)}, r"^open\.history: starts at 0"),
        ({"history": history([1], asked=True)}, r"^open\.history: .*asks about nothing"),
        ({"history": history([1, 64])}, r"^open\.history\.tokens: token 64 is outside the vocabulary of 64"),
        ({"history": history([0] * 37)}, r"^open\.history\.tokens: 37 tokens"),
        ({"acceptance": Lantern(64, 0.1)}, r"^open\.acceptance\.lantern\.num_neighbours: 64; a token has 63"),
        ({"prompt": "red " * 10 + "h"}, r"^prompt: 41 bytes; at most 40"),
        ({"prompt": "é" * 21}, r"^prompt: 42 bytes; at most 40"),
        ({"prompt": "purple"}, r"^prompt: unknown word 'purple'"),
    ],
)
def test_a_bad_open_names_its_field(
    admission: Admission, manifest: Manifest, fields: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        admission.admit_open(request(manifest, **fields))


@pytest.mark.parametrize("fault", ["changed", "missing", "extra"])
def test_digests_that_differ_are_named_alone(admission: Admission, manifest: Manifest, fault: str) -> None:
    digests = manifest.device_digests()
    if fault == "changed":
        digests["decoder.onnx"] = "0" * 64
    elif fault == "missing":
        del digests["decoder.onnx"]
    else:
        digests["other.onnx"] = "0" * 64
    named = "other.onnx" if fault == "extra" else "decoder.onnx"
    with pytest.raises(PairMismatch, match=rf"^open\.file_digests: {named} differ from bundle tiny 0"):
        admission.admit_open(request(manifest, file_digests=digests))


def test_draft_tokens_are_checked_against_the_vocabulary(admission: Admission) -> None:
    admission.check_draft(history([0, 63]))
    admission.check_draft(history([]))
    with pytest.raises(InvalidRequest, match=r"^draft\.block\.tokens: token 64"):
        admission.check_draft(history([0, 64]))


def test_resume_tokens_are_checked(admission: Admission) -> None:
    with pytest.raises(InvalidRequest, match=r"^resume_tokens: token 99"):
        admission.admit_generate("heart", Sampling(), np.array([99]))


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


def test_a_rule_is_taken_over(admission: Admission, manifest: Manifest) -> None:
    for acceptance in (Classic(), Lantern(63, 1.0)):
        assert admission.admit_open(request(manifest, acceptance=acceptance)).acceptance == acceptance


def test_laws_are_over_the_whole_vocabulary(admission: Admission) -> None:
    def draft(num_columns: int) -> Block:
        return replace(history([5], asked=True), laws=np.zeros((1, num_columns), np.float16))

    admission.check_draft(draft(64))
    with pytest.raises(InvalidRequest, match=r"^draft\.block\.laws: 63 values for an asked token; .* has 64"):
        admission.check_draft(draft(63))
