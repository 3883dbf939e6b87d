"""Emoji from npm packages: names, credits, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from ciar.training.emoji import PACKAGES, read_emoji
from ciar.training.icons import SourceError

NAMES = [
    {"unified": "1F600", "name": "GRINNING FACE", "category": "Smileys & Emotion"},
    {"unified": "2B50", "name": "WHITE MEDIUM STAR", "category": "Travel & Places"},
    {"unified": "1F1E8-1F1ED", "name": "Switzerland Flag", "category": "Flags"},
]


def _png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()


def _pack(path: Path, name: str, *, readme: str | None = None, with_names: bool = True) -> Path:
    package = PACKAGES.get(name)
    folder = package.folder if package else "package/"
    files = {"package/package.json": json.dumps({"name": name}).encode()}
    files["package/README.md"] = (readme if readme is not None else package.licence_words if package else "").encode()
    if with_names:
        files["package/emoji.json"] = json.dumps(NAMES).encode()
    for code, colour in (("1f600", "yellow"), ("2b50", "orange"), ("1f1e8-1f1ed", "red"), ("1f600-1f3fb", "pink")):
        files[f"{folder}{code}.png"] = _png(colour)
    with tarfile.open(path, "w:gz") as archive:
        for member, content in files.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_captions_are_style_and_name_without_flags_and_skin_tones(tmp_path: Path) -> None:
    google = _pack(tmp_path / "google.tgz", "emoji-datasource-google")
    fluent = _pack(tmp_path / "fluent.tgz", "@lobehub/fluent-emoji-3d", with_names=False)
    pictures, sets = read_emoji((google, fluent), 32)
    assert [p.caption for p in pictures] == [
        "noto grinning face",
        "noto white medium star",
        "fluent grinning face",
        "fluent white medium star",
    ]
    assert pictures[0].key == "noto:1f600"
    assert (pictures[0].image[16, 16] == [255, 255, 0]).all()
    assert pictures[0].image.shape == (32, 32, 3)
    assert {prefix: credit.licence for prefix, credit in sets.items()} == {"noto": "Apache-2.0", "fluent": "MIT"}


def test_what_is_refused(tmp_path: Path) -> None:
    google = _pack(tmp_path / "google.tgz", "emoji-datasource-google")
    with pytest.raises(SourceError, match=r"none\.tgz is missing: fetch it with `npm pack emoji-datasource-google"):
        read_emoji((google, tmp_path / "none.tgz"), 32)
    with pytest.raises(SourceError, match=r"data\.packages"):
        read_emoji((), 32)
    with pytest.raises(SourceError, match="is the package 'openmoji'"):
        read_emoji((_pack(tmp_path / "o.tgz", "openmoji"),), 32)
    with pytest.raises(SourceError, match="no longer says"):
        read_emoji((_pack(tmp_path / "l.tgz", "emoji-datasource-google", readme="all rights reserved"),), 32)
    with pytest.raises(SourceError, match="none holds the names"):
        read_emoji((_pack(tmp_path / "f.tgz", "@lobehub/fluent-emoji-3d", with_names=False),), 32)
    (tmp_path / "text.tgz").write_text("no", encoding="utf-8")
    with pytest.raises(SourceError, match=r"text\.tgz is not a tarball"):
        read_emoji((tmp_path / "text.tgz",), 32)
