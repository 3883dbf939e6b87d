"""The shapes that a replay can have, by name. Knows no torch: the device's process reads this too."""

from __future__ import annotations

import difflib
from contextlib import suppress
from pathlib import Path

from ciar.shared.errors import InvalidRequest

SIZES = {
    "tiny": "2 layers of width 64, V = 1 024: for tests",
    "B": "LlamaGen-B: 12 layers of width 768",
    "L": "LlamaGen-L: 24 layers of width 1024",
    "XL": "LlamaGen-XL: 36 layers of width 1280, the paper's cloud model",
    "XXL": "LlamaGen-XXL: 48 layers of width 1536",
}
"""Name -> what it is. All but `tiny` have V = 16 384; all have 16 × 16 tokens."""

GRID = 16

MEMORY_GB = {"tiny": 0.5, "B": 2, "L": 5.5, "XL": 13, "XXL": 23}
"""What the server holds at most while it is built on a CPU: about four times the weights."""


def available_gb() -> float | None:
    """Memory that programs may still have; None where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1e6
    return None


def require_memory(size: str, available: float | None) -> None:
    """available: GB. Raises InvalidRequest if a server of that size would not fit beside everything else."""
    if available is not None and available < MEMORY_GB[size]:
        raise InvalidRequest(
            f"size: {size} needs about {MEMORY_GB[size]:g} GB of memory on a CPU, {available:.1f} are free; "
            "take a smaller one"
        )


def find_size(name: str) -> str:
    """The name as `SIZES` has it. Raises InvalidRequest that names the nearest."""
    names = {size.lower(): size for size in SIZES}
    if found := names.get(name.strip().lower()):
        return found
    nearest = difflib.get_close_matches(name.strip().lower(), names, n=1, cutoff=0.4)
    hint = f"did you mean {names[nearest[0]]!r}?" if nearest else f"known are {', '.join(SIZES)}"
    raise InvalidRequest(f"size: unknown size {name!r}; {hint}")
