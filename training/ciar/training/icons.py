"""Reads the packed Iconify collection and renders the wanted drawings as coverage masks.

Flows in: the npm tarball `@iconify/json` and the concept table. Flows out: `Drawing`s (64x64 coverage masks with
their origin) and the licence record of every set. Knows nothing of colours, captions or tokens.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

LICENCES = frozenset({"Apache-2.0", "MIT", "ISC", "BSD-3-Clause", "CC0-1.0", "Unlicense", "CC-BY-4.0"})
"""Licences whose drawings may be trained on and redistributed with credit."""
LEFT_OUT_CATEGORIES = frozenset({"Logos", "Emoji", "Programming", "UI Multicolor"})
STYLE_WORDS = frozenset(
    [
        "outline",
        "outlined",
        "filled",
        "fill",
        "solid",
        "sharp",
        "rounded",
        "round",
        "line",
        "lined",
        "linear",
        "bold",
        "regular",
        "alt",
        "o",
        "s",
        "r",
        "l",
        "f",
        "baseline",
        "flat",
        "icon",
        "ios",
        "md",
        "remix",
        "stroke",
        "variant",
        "sm",
        "lg",
        "xs",
        "big",
        "small",
        "large",
        "mini",
        "micro",
    ]
)
"""Words of an icon's name that tell how it is drawn, not what it shows."""
UNWANTED_WORDS = frozenset(["thin", "light", "duotone", "twotone", "broken", "animated", "loop", "off", "slash"])
"""Drawings in these styles are left out: hairlines and half-tones have no place on a 64-pixel grid."""

CANVAS = 64
RENDER = 160


class SourceError(Exception):
    """The icon collection is missing or is not what it should be."""


@dataclass(frozen=True)
class IconSet:
    """One icon set and whom to credit for it."""

    prefix: str
    name: str
    author: str
    author_url: str
    licence: str
    licence_url: str


@dataclass(frozen=True)
class IconSource:
    """One drawing before rendering."""

    prefix: str
    name: str
    concept: str
    svg: str


@dataclass(frozen=True)
class Drawing:
    """One rendered drawing. mask: uint8 (64, 64) coverage, 0 … 255."""

    key: str
    """`prefix:name`, unique in the collection."""
    concept: str
    mask: np.ndarray


def base_name(name: str) -> str | None:
    """What an icon shows, from its name without style words; None if it is drawn in an unwanted style."""
    words = [w for w in name.split("-") if w]
    if UNWANTED_WORDS.intersection(words):
        return None
    # A number is a size (24) unless the drawing is numbered (dice-5).
    kept = [w for w in words if w not in STYLE_WORDS and not (w.isdigit() and int(w) > 9)]
    while kept and kept[-1].isdigit() and kept[0] != "dice":
        kept.pop()
    return " ".join(kept) or None


def _svg(data: dict, icon: dict) -> str:
    width = icon.get("width", data.get("width", 16))
    height = icon.get("height", data.get("height", 16))
    left, top = icon.get("left", 0), icon.get("top", 0)
    body = icon["body"].replace("currentColor", "#000")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{body}</svg>'
    )


def _is_wanted(about: dict | None) -> bool:
    """Whether a set's licence and kind admit it."""
    return (
        about is not None
        and about["license"].get("spdx") in LICENCES
        and not about.get("palette")
        and about.get("category") not in LEFT_OUT_CATEGORIES
    )


def _credit(prefix: str, about: dict) -> IconSet:
    author, licence = about.get("author", {}), about["license"]
    return IconSet(
        prefix, about["name"], author.get("name", ""), author.get("url", ""), licence["spdx"], licence.get("url", "")
    )


def read_sources(tarball: Path, concepts: dict[str, list[str]]) -> tuple[list[IconSource], dict[str, IconSet]]:
    """The wanted icons of all freely licensed sets, and the sets they come from.

    Raises SourceError if the tarball is missing or holds no `collections.json`.
    """
    if not tarball.exists():
        raise SourceError(f"{tarball} is missing: fetch it with `npm pack @iconify/json` or set data.tarball")
    by_name = {name: concept for concept, names in concepts.items() for name in names}
    sources: list[IconSource] = []
    sets: dict[str, IconSet] = {}
    with tarfile.open(tarball) as archive:
        about_all = next(
            (json.load(archive.extractfile(m)) for m in archive if m.name == "package/collections.json"), None
        )
    if about_all is None:
        raise SourceError(f"{tarball} holds no package/collections.json")
    with tarfile.open(tarball) as archive:  # one forward pass: seeking in a gzip stream is slow
        for member in tqdm(archive, desc="read", unit="file"):
            prefix = Path(member.name).stem
            if not member.name.startswith("package/json/") or not _is_wanted(about_all.get(prefix)):
                continue
            data = json.load(archive.extractfile(member))
            sets[prefix] = _credit(prefix, about_all[prefix])
            for name, icon in data["icons"].items():
                concept = by_name.get(base_name(name) or "")
                if concept is not None and not icon.get("hidden"):
                    sources.append(IconSource(prefix, name, concept, _svg(data, icon)))
    sources.sort(key=lambda source: (source.prefix, source.name))
    return sources, sets


def place(alpha: np.ndarray, ink_size: int) -> np.ndarray | None:
    """Crop to the ink, scale its longer side to ink_size pixels and centre it on the canvas.

    alpha: uint8 (h, w). Returns uint8 (64, 64), or None for a drawing without ink or with half-tones.
    """
    rows, cols = np.nonzero(alpha > 40)
    if rows.size < 20:
        return None
    crop = alpha[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
    inked = crop > 8
    if np.mean((crop[inked] > 40) & (crop[inked] < 215)) > 0.35:
        return None  # half-tone drawing: its coverage is not a shape
    height, width = crop.shape
    scale = ink_size / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.LANCZOS))
    mask = np.zeros((CANVAS, CANVAS), np.uint8)
    top, left = (CANVAS - size[1]) // 2, (CANVAS - size[0]) // 2
    mask[top : top + size[1], left : left + size[0]] = small
    return mask


def _render(job: tuple[str, int]) -> np.ndarray | None:
    import resvg_py

    svg, ink_size = job
    try:
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=RENDER, skip_system_fonts=True))
    except ValueError:
        return None
    alpha = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))[:, :, 3]
    return place(alpha, ink_size)


def render_all(sources: list[IconSource], ink_size: int, num_workers: int) -> Iterator[Drawing]:
    """Render every source; those that cannot be rendered are skipped."""
    jobs = [(source.svg, ink_size) for source in sources]
    with ProcessPoolExecutor(num_workers) as pool:
        masks = pool.map(_render, jobs, chunksize=64)
        for source, mask in zip(tqdm(sources, desc="render", unit="icon"), masks, strict=True):
            if mask is not None:
                yield Drawing(f"{source.prefix}:{source.name}", source.concept, mask)
