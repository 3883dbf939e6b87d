"""Judges of shapes drawn by code, trained once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ciar.benchmarks.evaluation.judges import Judges


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data` with the drawings and `cache` with the judges."""
    return tmp_path_factory.mktemp("judges")


@pytest.fixture(scope="session")
def judges(judge_folder: Path) -> Judges:
    from ciar.benchmarks.evaluation.judges import prepare_judges
    from tests.support.drawn_judges import CONFIG, write_drawings

    write_drawings(judge_folder / "data", 12, seed=0)
    return prepare_judges(judge_folder / "data", judge_folder / "cache", CONFIG)
