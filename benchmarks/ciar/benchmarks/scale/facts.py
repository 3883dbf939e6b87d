"""What a replaying server says of its model before it serves: its size, and how long a pass takes when it is alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

NAME = "facts.json"


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

    def save(self, folder: Path) -> None:
        (folder / NAME).write_text(self.model_dump_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Facts:
        return cls.model_validate_json((folder / NAME).read_text(encoding="utf-8"))
