"""The tables of an evaluation, drawn once and kept on disk, so that an interrupted one goes on where it was.

In: a pair, plays and pictures. Out: a `Table` for each play. A file is named by a digest of all that its content
depends on, so a file that is there is the right one.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ciar.benchmarks.evaluation.pictures import Picture
from ciar.benchmarks.evaluation.rollout import Pair, Play, Table, roll_out
from ciar.shared.types import Sampling

_FORMAT = 1
"""Raised when a roll-out notes something else, or otherwise."""


def draw_tables(
    pair: Pair, plays: Sequence[Play], pictures: Sequence[Picture], sampling: Sampling, folder: Path
) -> dict[str, Table]:
    """The table of each play by its name: read from `folder` if it is there, else drawn and written."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {play.name: folder / _name(pair, play, pictures, sampling) for play in plays}
    tables = {name: table for name, path in paths.items() if (table := _read(path)) is not None}
    missing = [play for play in plays if play.name not in tables]
    total = len(missing) * len(pictures) * pair.manifest.num_tokens
    with tqdm(total=total, unit="token", unit_scale=True, disable=None if missing else True) as bar:
        for play in missing:
            bar.set_description(play.name)
            tables[play.name] = roll_out(pair, pictures, play, sampling, bar.update)
            tables[play.name].save(paths[play.name])
    return {play.name: tables[play.name] for play in plays}


def _name(pair: Pair, play: Play, pictures: Sequence[Picture], sampling: Sampling) -> str:
    """Of the play, and of everything else that decides what is in its table."""
    said = [
        _FORMAT,
        pair.manifest.model_dump(mode="json"),
        [play.gate, play.send_features],
        [[picture.prompt, picture.seed, picture.group] for picture in pictures],
        sampling.model_dump(mode="json"),
    ]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
    return f"{play.name.replace(', ', '-').replace(' ', '-')}-{digest}.npz"


def _read(path: Path) -> Table | None:
    """None if there is no whole table."""
    try:
        return Table.load(path)
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError):
        return None
