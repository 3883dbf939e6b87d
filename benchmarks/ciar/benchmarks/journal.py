"""A run's JSONL file: the configuration in its first line, then a line for each finished measurement, written at once.

An interrupted run keeps what it has; a run that goes on must have the same configuration. Nothing is overwritten: a run
that begins anew moves the old file aside.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ciar.benchmarks.measurement import Measurement
from ciar.shared.errors import InvalidRequest

NAME = "bench.jsonl"


class Journal:
    """Appends measurements to a file. A context manager."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any], *, resume: bool, name: str = NAME) -> None:
        """configuration: in JSON's types; equal to the one in the file if the run is to go on there.

        name: of the file.

        Raises InvalidRequest if the folder cannot be written, or names what differs from the run to be taken up.
        """
        self.path = folder / name
        self.measurements: list[Measurement] = []
        """Finished, in order."""
        self._configuration = json.loads(json.dumps(configuration))
        self._resume = resume

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            begun = self.path.is_file() and self.path.stat().st_size > 0
            if begun and self._resume:
                self._read()
            elif begun:
                self._move_aside()
            self._file: IO[str] = self.path.open("a", encoding="utf-8")
        except OSError as exc:
            raise InvalidRequest(f"out: cannot write {self.path} ({exc.strerror})") from exc
        if not (begun and self._resume):
            self._write({"configuration": self._configuration})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def num_kept(self) -> int:
        """Finished measurements in the file, that of an interrupted `append` included if it got there."""
        return max(0, self.path.read_text(encoding="utf-8").count("\n") - 1) if self.path.is_file() else 0

    def append(self, measurement: Measurement) -> None:
        """Keep a finished measurement."""
        self._write(measurement.to_dict())
        self.measurements.append(measurement)

    def _write(self, record: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as exc:
            raise InvalidRequest(f"out: cannot write {self.path} ({exc.strerror})") from exc

    def _read(self) -> None:
        """Take in what is finished; a last line that was cut off in the writing is dropped."""
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            os.truncate(self.path, len(whole.encode()))
        lines = whole.splitlines()
        if not lines:
            raise InvalidRequest(f"resume: {self.path} has no configuration; leave out --resume to begin anew")
        self._require_same(self._parse(lines[0], 1).get("configuration", {}))
        for number, line in enumerate(lines[1:], 2):
            try:
                self.measurements.append(Measurement.from_dict(self._parse(line, number)))
            except (KeyError, TypeError) as exc:
                raise InvalidRequest(f"resume: line {number} of {self.path} is no measurement ({exc})") from exc

    def _parse(self, line: str, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError as exc:
            raise InvalidRequest(f"resume: line {number} of {self.path} is not JSON") from exc
        if not isinstance(record, dict):
            raise InvalidRequest(f"resume: line {number} of {self.path} is no record")
        return record

    def _require_same(self, found: Mapping[str, Any]) -> None:
        now = self._configuration
        differing = [name for name in {**found, **now} if found.get(name) != now.get(name)]
        if differing:
            details = "; ".join(
                f"{name} was {_short(found.get(name))}, is {_short(now.get(name))}" for name in differing
            )
            raise InvalidRequest(
                f"resume: {self.path} was begun with another configuration: {details}. Take the same, or another --out"
            )

    def _move_aside(self) -> None:
        stamp = datetime.fromtimestamp(self.path.stat().st_mtime).strftime("%Y%m%d-%H%M%S")
        self.path.replace(self.path.with_stem(f"{self.path.stem}-{stamp}"))


def require_writable(folder: Path) -> None:
    """Make the folder if need be. Raises InvalidRequest if nothing can be written there: better before the work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        raise InvalidRequest(f"out: cannot write into {folder} ({exc.strerror})") from exc


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
