"""Reads a folder of images with captions.

Flows in: a folder. Flows out: `Picture`s. Captions are in `metadata.jsonl`, one object with `file_name` and `text` a
line (Hugging Face's ImageFolder), or in a text file beside each image (`dog.png`, `dog.txt`). Folders inside it are
read too.
"""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ciar.training.dataset import DatasetError
from ciar.training.picture_set import Picture, square

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
METADATA = "metadata.jsonl"
PREFIX = "folder"
"""Of the keys, in place of the name of an icon set."""


def read_folder(folder: Path, size: int) -> list[Picture]:
    """All images of a folder, scaled to size × size, in the order of their names.

    Raises DatasetError that names the file: an image that does not open or has no caption, metadata that cannot be
    read or name a file that is not there; or the folder, if it holds no image.
    """
    if not folder.is_dir():
        raise DatasetError(f"data.folder: {folder} is not a folder")
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not images:
        raise DatasetError(f"data.folder: {folder} holds no image; known are {', '.join(sorted(SUFFIXES))}")
    metadata = folder / METADATA
    captions = _from_metadata(metadata) if metadata.is_file() else _from_text_files(images)
    for path in images:
        if not captions.get(path, "").strip():
            where = (
                f"name it in {METADATA}" if metadata.is_file() else f"write {path.with_suffix('.txt').name} beside it"
            )
            raise DatasetError(f"{path} has no caption: {where}, or take the image away")
    return [
        Picture(f"{PREFIX}:{path.relative_to(folder).as_posix()}", open_square(path, size), captions[path])
        for path in tqdm(images, desc="read", unit="image")
    ]


def open_square(path: Path, size: int):
    """One image file as uint8 (size, size, 3). Raises DatasetError that names it if it does not open."""
    try:
        with Image.open(path) as image:
            return square(image, size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise DatasetError(f"{path} does not open as an image ({exc}): mend it or take it away") from exc


def _from_text_files(images: list[Path]) -> dict[Path, str]:
    beside = {path: path.with_suffix(".txt") for path in images}
    return {path: _text(caption) for path, caption in beside.items() if caption.is_file()}


def _from_metadata(path: Path) -> dict[Path, str]:
    captions: dict[Path, str] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as exc:
            raise DatasetError(f"{where} is not JSON: {exc}") from exc
        for field in ("file_name", "text"):
            if not isinstance(entry, dict) or not isinstance(entry.get(field), str):
                raise DatasetError(f'{where}: "{field}" is missing or is not a text')
        image = path.parent / entry["file_name"]
        if not image.is_file():
            raise DatasetError(f"{where} names {entry['file_name']}, which is not in {path.parent}")
        captions[image] = entry["text"]
    return captions


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise DatasetError(f"{path} is not UTF-8 text") from exc
