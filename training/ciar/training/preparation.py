"""The `data` step: one function for every source, all writing a prepared data set into the run's folder.

Flows in: a `RunConfig`. Flows out: a data set on disk, and lines to print. Nothing is downloaded.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

from ciar.training.captions import ICON_LENGTH, build_vocabulary
from ciar.training.curation import Kept, curate
from ciar.training.dataset import FILE as DRAWINGS
from ciar.training.dataset import SPLITS, write_dataset
from ciar.training.domains import require_splits
from ciar.training.drawn import SET, SHAPES, draw_all
from ciar.training.emoji import read_emoji
from ciar.training.folder import PREFIX, read_folder
from ciar.training.icons import IconSet, read_sources, render_all
from ciar.training.picture_set import FILE as PICTURES
from ciar.training.picture_set import HELD_OUT_PROMPTS, IMAGES, PROMPTS, Picture, write_pictures
from ciar.training.scenes.picture_files import write_scenes
from ciar.training.settings import RunConfig


def prepare(config: RunConfig, folder: Path) -> list[str]:
    """Read, check and split the data of the configured source.

    Raises DatasetError, SourceError or ValueError that names the file or the field.
    """
    for name in (DRAWINGS, PICTURES, IMAGES, PROMPTS, HELD_OUT_PROMPTS):  # of another source, from an earlier run
        (folder / name).unlink(missing_ok=True)
    return SOURCES[config.data.source](config, folder)


def _drawn(config: RunConfig, folder: Path) -> list[str]:
    kept = draw_all(16, config.tokenizer_training.seed)
    return _write_drawings(config, folder, kept, {SET.prefix: SET}, sorted(SHAPES), {})


def _iconify(config: RunConfig, folder: Path) -> list[str]:
    with config.data.concepts.open("rb") as file:
        table = tomllib.load(file)
    sources, sets = read_sources(config.data.tarball, table["concepts"])
    drawings = list(render_all(sources, config.data.ink_size, config.num_threads))
    kept, lines = curate(drawings, config.curation, frozenset(table["left_out"]["groups"]))
    concepts = sorted({k.drawing.concept for k in kept})
    return [*lines, *_write_drawings(config, folder, kept, sets, concepts, aliases_of(table, concepts))]


def _write_drawings(
    config: RunConfig,
    folder: Path,
    kept: list[Kept],
    sets: dict[str, IconSet],
    concepts: list[str],
    aliases: dict[str, str],
) -> list[str]:
    vocabulary = build_vocabulary(concepts, aliases, config.captions.length or ICON_LENGTH)
    data = write_dataset(folder, kept, vocabulary, sets, config.data.split)
    require_splits(data.split)
    counts = ", ".join(f"{name} {len(data.rows(name))}" for name in SPLITS)
    groups = len({(k.drawing.concept, k.style) for k in kept})
    return [f"{len(kept)} drawings of {len(concepts)} concepts in {groups} groups; {counts}"]


def aliases_of(table: dict, concepts: list[str]) -> dict[str, str]:
    """Caption aliases: the source names of a concept that a person would also say."""
    barred = set(table["no_alias"]["names"]) | set(concepts)
    named = {name: concept for concept, names in table["concepts"].items() for name in names}
    named |= table.get("extra_aliases", {})
    return {name: concept for name, concept in named.items() if concept in concepts and name not in barred}


def _folder(config: RunConfig, folder: Path) -> list[str]:
    assert config.data.folder is not None
    about = config.data.credit
    name = about.name or config.data.folder.resolve().name
    credit = IconSet(PREFIX, name, about.author, about.author_url, about.licence, about.licence_url)
    pictures = read_folder(config.data.folder, config.tokenizer.image_size)
    return _write_pictures(config, folder, pictures, {PREFIX: credit})


def _emoji(config: RunConfig, folder: Path) -> list[str]:
    return _write_pictures(config, folder, *read_emoji(config.data.packages, config.tokenizer.image_size))


def _write_pictures(config: RunConfig, folder: Path, pictures: list[Picture], sets: dict[str, IconSet]) -> list[str]:
    data, lines = write_pictures(folder, pictures, config.captions, sets, config.data.split)
    require_splits(data.split)
    return lines


def _scenes(config: RunConfig, folder: Path) -> list[str]:
    data = config.data
    return write_scenes(folder, data.num_pictures, config.tokenizer.image_size, data.split, data.seed)


SOURCES: dict[str, Callable[[RunConfig, Path], list[str]]] = {
    "iconify": _iconify,
    "drawn": _drawn,
    "folder": _folder,
    "emoji": _emoji,
    "scenes": _scenes,
}
