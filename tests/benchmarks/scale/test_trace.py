"""Traces: what they keep of a picture, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciar.benchmarks.scale.trace import Record, Trace
from ciar.device_client import Decision
from ciar.shared.errors import InvalidRequest


def test_a_record_keeps_who_asked_and_who_agreed() -> None:
    decisions = (Decision.PREFIX, Decision.LOCAL, Decision.CONFIRMED, Decision.CORRECTED)
    record = Record.of("ciar", "a star", decisions)
    assert record.decisions == "plcx"
    np.testing.assert_array_equal(record.asked, [False, False, True, True])
    np.testing.assert_array_equal(record.agrees, [True, True, True, False])
    sent = Record.of("ciar", "a star", decisions, {1: True, 2: True, 3: False}, (2,))
    assert (sent.decisions, sent.forks) == ("plxc", (2,))


def test_a_trace_survives_its_file(tmp_path: Path, trace: Trace) -> None:
    trace.save(tmp_path / "trace.json")
    again = Trace.load(tmp_path / "trace.json")
    assert again == trace
    assert again.digest == trace.digest
    assert again.prompts == ("A star, red & filled",)


def shorten(trace: dict[str, Any]) -> None:
    trace["records"][1]["decisions"] = trace["records"][1]["decisions"][:-1]


def misspell(trace: dict[str, Any]) -> None:
    trace["records"][0]["decisions"] = "?" * 256


def repeat(trace: dict[str, Any]) -> None:
    trace["records"].append(trace["records"][0])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (shorten, "records.1.decisions: 255 tokens, the grid has 256"),
        (misspell, "records.0.decisions"),
        (repeat, "two records of the same prompt"),
        (lambda trace: trace.pop("seed"), "seed: Field required"),
    ],
)
def test_a_spoilt_trace_is_a_sentence(
    tmp_path: Path, trace: Trace, spoil: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    values = json.loads(trace.model_dump_json())
    spoil(values)
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(values))
    with pytest.raises(InvalidRequest, match=r"^trace: ") as caught:
        Trace.load(path)
    assert sentence in str(caught.value)


def test_a_trace_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"^trace: cannot read .*nothing.json"):
        Trace.load(tmp_path / "nothing.json")


def test_a_trace_of_another_grid_is_refused(trace: Trace) -> None:
    trace.require_grid(16, 16)
    with pytest.raises(InvalidRequest, match=r"^trace: its pictures have 16 × 16 tokens, the model's 24 × 24"):
        trace.require_grid(24, 24)
