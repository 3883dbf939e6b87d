"""A folder of images with captions: both conventions, and every way in which it may be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciar.training.captions import CaptionConfig
from ciar.training.dataset import DatasetError, SplitConfig
from ciar.training.folder import read_folder
from ciar.training.icons import IconSet
from ciar.training.picture_set import load_pictures, square, write_pictures

SETS = {"folder": IconSet("folder", "mine", "me", "", "CC0-1.0", "")}


def _image(path: Path, colour: tuple[int, ...] = (200, 0, 0), size: tuple[int, int] = (20, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(path)


def _metadata(folder: Path, *entries: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries), encoding="utf-8")


def test_metadata_names_images_and_texts(tmp_path: Path) -> None:
    _image(tmp_path / "a.png")
    _image(tmp_path / "train" / "b.jpg", (0, 0, 200))
    _metadata(tmp_path, {"file_name": "train/b.jpg", "text": "a blue one"}, {"file_name": "a.png", "text": "red"})
    first, second = read_folder(tmp_path, 16)
    assert (first.key, first.caption) == ("folder:a.png", "red")
    assert (second.key, second.caption) == ("folder:train/b.jpg", "a blue one")
    assert first.image.shape == (16, 16, 3)
    assert (first.image == [200, 0, 0]).all()


def test_a_text_file_beside_each_image(tmp_path: Path) -> None:
    _image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("red\n", encoding="utf-8")
    assert [p.caption.strip() for p in read_folder(tmp_path, 8)] == ["red"]


def test_transparent_is_white_and_the_middle_is_kept() -> None:
    assert (square(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), 8) == 255).all()
    wide = Image.new("RGB", (30, 10), "white")
    wide.paste((0, 200, 0), (10, 0, 20, 10))
    assert (square(wide, 8)[2:6, 2:6] == [0, 200, 0]).all()
    assert square(Image.new("L", (5, 7), 90), 8).shape == (8, 8, 3)


def _broken_image(folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"not an image")
    (folder / "bad.txt").write_text("red", encoding="utf-8")


def _truncated_image(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "bad.png")
    (folder / "bad.png").write_bytes((folder / "bad.png").read_bytes()[:2000])
    (folder / "bad.txt").write_text("red", encoding="utf-8")


def _no_caption(folder: Path) -> None:
    _image(folder / "bare.png")


def _blank_caption(folder: Path) -> None:
    _image(folder / "bare.png")
    (folder / "bare.txt").write_text(" \n", encoding="utf-8")


def _not_in_metadata(folder: Path) -> None:
    _image(folder / "bare.png")
    _image(folder / "a.png")
    _metadata(folder, {"file_name": "a.png", "text": "red"})


def _gone(folder: Path) -> None:
    _image(folder / "a.png")
    _metadata(folder, {"file_name": "a.png", "text": "red"}, {"file_name": "gone.png", "text": "red"})


def _not_json(folder: Path) -> None:
    _image(folder / "a.png")
    (folder / "metadata.jsonl").write_text("{oops\n", encoding="utf-8")


def _no_text(folder: Path) -> None:
    _image(folder / "a.png")
    _metadata(folder, {"file_name": "a.png", "caption": "red"})


def _not_utf8(folder: Path) -> None:
    _image(folder / "a.png")
    (folder / "a.txt").write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "holds no image"),
        (_broken_image, r"bad\.png does not open"),
        (_truncated_image, r"bad\.png does not open"),
        (_no_caption, r"bare\.png has no caption: write bare\.txt"),
        (_blank_caption, r"bare\.png has no caption"),
        (_not_in_metadata, r"bare\.png has no caption: name it in metadata\.jsonl"),
        (_gone, r"line 2 names gone\.png, which is not in"),
        (_not_json, r"line 1 is not JSON"),
        (_no_text, r'line 1: "text" is missing'),
        (_not_utf8, r"a\.txt is not UTF-8"),
    ],
)
def test_what_is_wrong_is_named(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(DatasetError, match=message):
        read_folder(tmp_path, 8)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"data\.folder: .*none is not a folder"):
        read_folder(tmp_path / "none", 8)


def _folder(folder: Path, captions: list[str]) -> list:
    for i, caption in enumerate(captions):
        _image(folder / f"{i}.png", (i, 0, 0))
        (folder / f"{i}.txt").write_text(caption, encoding="utf-8")
    return read_folder(folder, 8)


def test_a_set_reads_back_as_it_was_written(tmp_path: Path) -> None:
    captions = ["A red dog", "the Red cat!", "blue dog", "dog", "big dog on a hill"]
    pictures = _folder(tmp_path / "images", captions)
    written, lines = write_pictures(tmp_path, pictures, CaptionConfig(), SETS, SplitConfig(held_out_share=0.5))
    data = load_pictures(tmp_path)
    assert np.array_equal(data.images, written.images)
    assert data.vocabulary.kinds["word"] == ("big", "blue", "cat", "dog", "hill", "on", "red")
    assert data.vocabulary.length == 4
    for row, caption in enumerate(captions):
        assert np.array_equal(data.vocabulary.encode(caption), data.captions[row])
    assert set((tmp_path / "prompts.txt").read_text(encoding="utf-8").splitlines()) == {
        data.prompt(row) for row in data.rows("train")
    }
    (credit,) = json.loads((tmp_path / "credits.json").read_text(encoding="utf-8"))
    assert (credit["licence"], credit["author"], credit["drawings"]) == ("CC0-1.0", "me", 5)
    assert "5 pictures, 7 words" in lines[-1]


def test_rare_words_are_not_learnt_and_pictures_without_another_are_left_out(tmp_path: Path) -> None:
    pictures = _folder(tmp_path / "images", ["red dog", "red cat", "blue"])
    data, lines = write_pictures(tmp_path, pictures, CaptionConfig(min_count=2), SETS, SplitConfig())
    assert data.vocabulary.phrases == ("red",)
    assert data.keys == ("folder:0.png", "folder:1.png")
    assert lines[0].startswith("1 pictures left out")
    with pytest.raises(ValueError, match=r"captions\.min_count"):
        write_pictures(tmp_path, pictures, CaptionConfig(min_count=9), SETS, SplitConfig())


def test_a_caption_with_too_many_words_is_named_with_both_numbers(tmp_path: Path) -> None:
    pictures = _folder(tmp_path / "images", ["red dog", "one two three four five"])
    with pytest.raises(DatasetError, match=r"1\.png: the caption has 5 words, more than the 4 of captions\.length"):
        write_pictures(tmp_path, pictures, CaptionConfig(length=4), SETS, SplitConfig())
