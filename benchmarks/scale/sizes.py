"""The shapes that a replay can have, by name. Knows no torch: the device's process reads this too."""

from __future__ import annotations

import difflib

from shared.errors import InvalidRequest

SIZES = {
    "tiny": "2 layers of width 64, V = 1 024: for tests",
    "B": "LlamaGen-B: 12 layers of width 768",
    "L": "LlamaGen-L: 24 layers of width 1024",
    "XL": "LlamaGen-XL: 36 layers of width 1280, the paper's cloud model",
    "XXL": "LlamaGen-XXL: 48 layers of width 1536",
}
"""Name -> what it is. All but `tiny` have V = 16 384; all have 16 × 16 tokens."""

GRID = 16


def find_size(name: str) -> str:
    """The name as `SIZES` has it. Raises InvalidRequest that names the nearest."""
    names = {size.lower(): size for size in SIZES}
    if found := names.get(name.strip().lower()):
        return found
    nearest = difflib.get_close_matches(name.strip().lower(), names, n=1, cutoff=0.4)
    hint = f"did you mean {names[nearest[0]]!r}?" if nearest else f"known are {', '.join(SIZES)}"
    raise InvalidRequest(f"size: unknown size {name!r}; {hint}")
