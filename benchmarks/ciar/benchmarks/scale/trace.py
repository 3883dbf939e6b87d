"""Decision traces: of each token of a picture, whether the device asked about it, and whether the cloud agreed.

In: what a real pair decided. Out: a small JSON file, and the same as masks over positions. A trace knows neither tokens
nor laws, so it can be replayed with models that have others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ciar.device_client import Decision
from ciar.shared.errors import InvalidRequest
from ciar.shared.types import Mask

LETTERS = {
    Decision.PREFIX: "p",
    Decision.LOCAL: "l",
    Decision.CONFIRMED: "c",
    Decision.CORRECTED: "x",
}


class Record(BaseModel):
    """One picture of one method."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    prompt: str
    decisions: str = Field(pattern=r"^p*[lcx]*$")
    """(T,) one letter a token: prefix, local, confirmed, corrected. What was drafted and dropped leaves no trace.

    Confirmed or corrected is what was sent. Where the cloud carries on, that may have been drafted before a correction.
    """
    forks: tuple[int, ...] = ()
    """Positions from which on the device took back what it had sent."""

    @classmethod
    def of(
        cls,
        method: str,
        prompt: str,
        decisions: Sequence[Decision],
        corrected: Mapping[int, bool] | None = None,
        forks: Sequence[int] = (),
    ) -> Record:
        """From a picture's decisions (T,); corrected: position -> whether the cloud replaced what was sent there."""
        letters = [LETTERS[decision] for decision in decisions]
        for position, replaced in (corrected or {}).items():
            if letters[position] in "cx":
                letters[position] = "x" if replaced else "c"
        return cls(method=method, prompt=prompt, decisions="".join(letters), forks=tuple(forks))

    @property
    def asked(self) -> Mask:
        """(T,) the device asked about this token."""
        return np.array([letter in "cx" for letter in self.decisions])

    @property
    def agrees(self) -> Mask:
        """(T,) the cloud had nothing against this token: True where it was not asked."""
        return np.array([letter != "x" for letter in self.decisions])


class Trace(BaseModel):
    """Pictures of one pair. The number of a record is the seed under which it is replayed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    pair: str
    """Name, version and digest of the pair that decided."""
    seed: int = Field(ge=0)
    """Of all pictures."""
    prefix_rate: float = Field(ge=0, le=1)
    """ρ: share of the tokens that the cloud wrote first."""
    grid_height: int = Field(gt=0)
    grid_width: int = Field(gt=0)
    records: tuple[Record, ...]

    @property
    def num_tokens(self) -> int:
        """Number T of tokens in a picture."""
        return self.grid_height * self.grid_width

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt once, in order."""
        return tuple(dict.fromkeys(record.prompt for record in self.records))

    @property
    def digest(self) -> str:
        """A short digest of all that was decided."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @model_validator(mode="after")
    def _check(self) -> Trace:
        for number, record in enumerate(self.records):
            if len(record.decisions) != self.num_tokens:
                raise ValueError(
                    f"records.{number}.decisions: {len(record.decisions)} tokens, the grid has {self.num_tokens}"
                )
        keys = [(record.method, record.prompt) for record in self.records]
        if len(set(keys)) < len(keys):
            raise ValueError("records: a method has two records of the same prompt")
        return self

    @classmethod
    def load(cls, path: Path) -> Trace:
        """Read a file. Raises InvalidRequest that names the field."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as exc:
            raise InvalidRequest(f"trace: cannot read {path}; give a file that `ciar bench-scale` wrote") from exc
        except ValidationError as exc:
            problem = exc.errors()[0]
            field = ".".join(map(str, problem["loc"])) or "document"
            raise InvalidRequest(f"trace: {path}: {field}: {problem['msg']}") from exc

    def save(self, path: Path) -> None:
        """Write the file. Raises InvalidRequest if that cannot be."""
        try:
            path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        except OSError as exc:
            raise InvalidRequest(f"out: cannot write {path} ({exc.strerror})") from exc

    def require_grid(self, height: int, width: int) -> None:
        """Raises InvalidRequest if the trace is of pictures of another grid."""
        if (self.grid_height, self.grid_width) != (height, width):
            raise InvalidRequest(
                f"trace: its pictures have {self.grid_height} × {self.grid_width} tokens, the model's "
                f"{height} × {width}; record one with a pair of that grid"
            )
