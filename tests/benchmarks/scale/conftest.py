"""A trace made by hand, of a picture with as many tokens as every size has."""

from __future__ import annotations

import pytest

from ciar.benchmarks.scale.trace import Record, Trace

PROMPT = "A star, red & filled"
CIAR = "p" * 15 + ("l" * 6 + "c" + "x") * 30 + "l"
LOSSLESS = "p" * 15 + "ccx" * 80 + "c"


@pytest.fixture
def trace() -> Trace:
    """One prompt by `ciar` and by `lossless`."""
    return Trace(
        pair="made by hand",
        seed=7,
        prefix_rate=0.06,
        grid_height=16,
        grid_width=16,
        records=(
            Record(method="ciar", prompt=PROMPT, decisions=CIAR),
            Record(method="lossless", prompt=PROMPT, decisions=LOSSLESS),
        ),
    )
