"""The data step, and what the other steps see of either kind of data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ciar.training.dataset import DatasetError
from ciar.training.domains import IconDomain, PictureDomain, load_domain
from ciar.training.preparation import prepare
from ciar.training.settings import RunConfig
from ciar.training.token_data import PictureTokens, TokenData


@pytest.fixture
def drawn() -> RunConfig:
    return RunConfig(name="x", data={"source": "drawn", "split": {"held_out_share": 0.2}})


@pytest.fixture
def pictures(tmp_path: Path) -> RunConfig:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(20):
        Image.new("RGB", (9, 9), ("red", "blue")[i % 2]).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"{('red', 'blue')[i % 2]} wall {i // 4}", encoding="utf-8")
    split = {"held_out_share": 0.2}
    return RunConfig(name="x", data={"source": "folder", "folder": folder, "split": split}, tokenizer={"grid": 4})


def test_both_kinds_stand_behind_one_interface(drawn: RunConfig, pictures: RunConfig, tmp_path: Path) -> None:
    prepare(drawn, tmp_path / "run")
    icons = load_domain(tmp_path / "run", drawn)
    assert isinstance(icons, IconDomain)
    assert icons.images.shape == (128, 64, 64)
    assert "triangle" in " ".join(icons.sample_prompts())
    prepare(pictures, tmp_path / "run")  # the drawings are gone
    plain = load_domain(tmp_path / "run", pictures)
    assert isinstance(plain, PictureDomain)
    assert plain.images.shape == (20, 3, 16, 16)
    assert plain.images.dtype == icons.images.dtype == torch.uint8
    assert (plain.images[0].flatten(1) == torch.tensor([[255], [0], [0]])).all()
    for domain, kind in ((icons, TokenData), (plain, PictureTokens)):
        source = domain.source(torch.zeros(len(domain.images), 16, dtype=torch.int64))
        assert isinstance(source, kind)
        tokens, captions = source.batch(4, np.random.default_rng(0))
        assert tokens.shape == (4, 16)
        assert captions.shape == (4, domain.dataset.vocabulary.length)


def test_sample_prompts_of_pictures_are_captions_held_out_ones_first(pictures: RunConfig, tmp_path: Path) -> None:
    prepare(pictures, tmp_path / "run")
    domain = load_domain(tmp_path / "run", pictures)
    prompts = domain.sample_prompts()
    assert len(set(prompts)) == len(prompts) == 10
    assert prompts[0] == domain.dataset.prompt(domain.dataset.rows("held_out_drawings")[0])
    for prompt in prompts:
        domain.dataset.vocabulary.encode(prompt)


def test_pictures_of_another_size_than_the_tokenizer_are_refused(pictures: RunConfig, tmp_path: Path) -> None:
    prepare(pictures, tmp_path / "run")
    other = pictures.model_copy(update={"tokenizer": pictures.tokenizer.model_copy(update={"grid": 8})})
    with pytest.raises(DatasetError, match=r"tokenizer\.grid: 8 means pictures of 32 pixels, the data set has 16"):
        load_domain(tmp_path / "run", other)
    with pytest.raises(DatasetError, match="`data` command"):
        load_domain(tmp_path / "none", other)


def test_everything_held_out_is_refused(pictures: RunConfig, tmp_path: Path) -> None:
    split = pictures.data.split.model_copy(update={"held_out_sets": ("folder",)})
    data = pictures.data.model_copy(update={"split": split})
    with pytest.raises(DatasetError, match=r"20 of 20 pictures are held out; lower held_out_share"):
        prepare(pictures.model_copy(update={"data": data}), tmp_path / "run")
