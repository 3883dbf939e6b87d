"""What the server of `ciar bench-scale` says of its large model: its size, and how long a pass takes alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict


class Facts(BaseModel):
    """Written by the server's process, read by the benchmark's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    """Where the model runs, in words."""
    num_parameters: int
    pass_bytes: int
    """Of the weights that every pass reads."""
    bandwidth_bytes_s: float
    """Memory that a plain sum reads in a second, with the threads (or on the device) of a pass."""
    pass_s: Mapping[int, float]
    """Number of new tokens -> seconds of a guided pass over them, half a picture in the cache."""

    @property
    def floor_s(self) -> float:
        """Seconds to read the weights once: no pass can be faster."""
        return self.pass_bytes / self.bandwidth_bytes_s

    @property
    def row_cost(self) -> float:
        """c: what a row costs, in parts of a pass without rows, by a straight line through all that was measured."""
        rows = np.array(list(self.pass_s), np.float64)
        slope, fixed = np.polyfit(rows, np.array(list(self.pass_s.values())), 1)
        return float(slope / fixed)

    def save(self, path: Path) -> None:
        path.write_text(self.model_dump_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Facts:
        return cls.model_validate_json(path.read_text(encoding="utf-8"))
