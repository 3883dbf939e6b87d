"""Committed configurations load; wrong ones name the field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from ciar.training.cli import app
from ciar.training.settings import ConfigError, load_config

CONFIGS = sorted((Path(__file__).parents[2] / "training" / "ciar" / "training" / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_committed_configuration_loads(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_errors_name_file_and_field(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "x"\n[cloud_training]\nbatch_size = 0\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.toml: cloud_training\.batch_size"):
        load_config(path)
    path.write_text("name = ", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load_config(path)
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("command", "message"), [("tokenizer", "`data`"), ("cloud", "`data`"), ("features", "`cloud`")]
)
def test_a_step_without_the_one_before_it_says_what_to_run(command: str, message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [command, "--config", str(CONFIGS[-1]), "--run", str(tmp_path)])
    assert result.exit_code == 1
    assert message in result.output


def test_a_budget_is_given_once_and_the_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "x"\n[cloud_training]\nseconds = 5\nnum_steps = 5\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cloud_training: .*not both"):
        load_config(path)
    path.write_text('name = "x"\n[data]\nsource = "folder"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"data: .*folder"):
        load_config(path)


def test_a_drafter_whose_heads_no_device_could_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "x"\n[drafter]\ndim = 64\nnum_heads = 8\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"drafter: .*multiple of 16"):
        load_config(path)


def test_every_step_says_what_goes_in_and_out() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for step in (*STEPS, "refine", "export", "sample"):
        assert step in result.output
        shown = CliRunner().invoke(app, [step, "--help"]).output
        assert "In: " in shown
        assert "Out: " in shown


def test_a_missing_gpu_ends_a_step_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = _changed(_config("smoke"), "num_threads = 1\n", 'num_threads = 1\ndevice = "cuda"\n', tmp_path)
    options = ["--config", str(path), "--run", str(tmp_path / "run")]
    assert CliRunner().invoke(app, ["data", *options]).exit_code == 0
    result = CliRunner().invoke(app, ["tokenizer", *options])
    assert result.exit_code == 1
    assert 'device: "cuda" is not there' in result.output


def test_a_missing_tarball_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    for name, command in (("icons", "npm pack @iconify/json"), ("emoji", "npm pack emoji-datasource-google")):
        path = _changed(_config(name), '"runs/', f'"{tmp_path}/', tmp_path)
        result = CliRunner().invoke(app, ["data", "--config", str(path), "--run", str(tmp_path / "run")])
        assert result.exit_code == 1
        assert command in " ".join(result.output.split())


def test_a_step_with_another_configuration_names_the_field(tmp_path: Path) -> None:
    quick = _changed(_config("smoke"), "num_steps = 120", "num_steps = 1", tmp_path)
    options = ["--config", str(quick), "--run", str(tmp_path / "run")]
    for step in ("data", "tokenizer"):
        assert CliRunner().invoke(app, [step, *options], catch_exceptions=False).exit_code == 0
    for before, after, step, message in (
        ("batch_size = 16", "batch_size = 8", "tokenizer", "training.batch_size was 16 and is 8"),
        ("vocab_size = 96", "vocab_size = 80", "cloud", "tokenizer.vocab_size was 96 and is 80"),
        ("vocab_size = 96", "grid = 8", "cloud", "tokenizer.grid: 8 means pictures of 32 pixels, the data set has 64"),
    ):
        other = _changed(quick, before, after, tmp_path)
        result = CliRunner().invoke(app, [step, "--config", str(other), "--run", str(tmp_path / "run")])
        assert result.exit_code == 1
        assert message in " ".join(result.output.split())


def test_nothing_held_out_is_an_error_before_training(tmp_path: Path) -> None:
    path = _changed(_config("smoke"), "held_out_share = 0.15", "held_out_share = 0.0", tmp_path)
    result = CliRunner().invoke(app, ["data", "--config", str(path), "--run", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "raise held_out_share" in result.output


@pytest.mark.slow
def test_smoke_chain(tmp_path: Path) -> None:
    """Every step of the smoke configuration, in order; about two minutes."""
    bundle = _run_chain(_config("smoke"), tmp_path)
    assert "drawn" in (bundle / "README.md").read_text(encoding="utf-8").lower()


@pytest.mark.slow
def test_smoke_chain_on_a_folder(tmp_path: Path) -> None:
    """The same on a user's images: data → tokenizer → cloud → drafter → export → a picture on a device."""
    images = tmp_path / "images"
    _draw_images(images)
    bundle = _run_chain(_changed(_config("smoke-folder"), '"runs/images"', f'"{images}"', tmp_path), tmp_path)
    assert "images for a smoke run" in (bundle / "README.md").read_text(encoding="utf-8")
    from ciar.shared.cli import app as ciar

    picture = tmp_path / "picture.png"
    command = ["generate", "a red disc on white", "--bundle", str(bundle), "-o", str(picture), "--seed", "1"]
    result = CliRunner().invoke(ciar, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with Image.open(picture) as drawn:
        assert drawn.size == (32, 32)


@pytest.mark.slow
def test_smoke_chain_on_scenes(tmp_path: Path) -> None:
    """The same on landscapes painted by code, with cells of eight pixels and bfloat16."""
    config = _changed(_config("smoke-folder"), 'source = "folder"', 'source = "scenes"\nnum_pictures = 300', tmp_path)
    config = _changed(config, "grid = 8 ", "stride = 8\ngrid = 8 ", tmp_path)
    config = _changed(config, "num_steps = 60", 'num_steps = 60\nprecision = "bfloat16"', tmp_path)
    bundle = _run_chain(config, tmp_path)
    assert "cactus" in (bundle / "README.md").read_text(encoding="utf-8")
    from ciar.shared.cli import app as ciar

    picture = tmp_path / "picture.png"
    command = ["generate", "snowy mountains by a lake at sunset", "--bundle", str(bundle), "-o", str(picture)]
    result = CliRunner().invoke(ciar, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with Image.open(picture) as drawn:
        assert drawn.size == (64, 64)


STEPS = ("data", "tokenizer", "cloud", "laws", "drafter", "radius", "features")


def _config(name: str) -> Path:
    return next(path for path in CONFIGS if path.stem == name)


def _changed(path: Path, before: str, after: str, folder: Path) -> Path:
    """A copy of a configuration with some text replaced."""
    text = path.read_text(encoding="utf-8")
    assert before in text
    copy = folder / "changed" / path.name
    copy = copy if not copy.exists() else copy.with_stem(f"{path.stem}-{len(list(copy.parent.iterdir()))}")
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(text.replace(before, after), encoding="utf-8")
    return copy


def _draw_images(folder: Path) -> None:
    """Discs and squares of three colours on two grounds, with metadata.jsonl."""
    folder.mkdir()
    entries = []
    for i in range(48):
        colour, ground = ("red", "green", "blue")[i % 3], ("white", "black")[i // 3 % 2]
        shape = ("disc", "square")[i // 6 % 2]
        image = Image.new("RGB", (40, 40), ground)
        box = (6 + i // 12, 6 + i // 12, 34, 34)
        getattr(ImageDraw.Draw(image), "ellipse" if shape == "disc" else "rectangle")(box, fill=colour)
        image.save(folder / f"{i}.png")
        entries.append({"file_name": f"{i}.png", "text": f"A {colour} {shape} on {ground}"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries), encoding="utf-8")


def _run_chain(config: Path, folder: Path) -> Path:
    """All steps of a run; the folder of its bundle."""
    from ciar.shared.bundle import load_manifest

    options = ["--config", str(config), "--run", str(folder / "run")]
    for step in (*STEPS, "export"):
        result = CliRunner().invoke(app, [step, *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    bundle = folder / "run" / "bundle"
    assert load_manifest(bundle).name == load_config(config).export.name
    return bundle
