"""Train a pair: every step is one command over the run's folder, from one configuration file.

data → tokenizer (→ refine) → cloud → laws → drafter → radius → features → export. Each reads what the step before it
wrote; a step that was stopped goes on where it stood. With `bundle` in the configuration, the cloud model of that
bundle is taken and the first steps are left out. TensorBoard reads the folder: tensorboard --logdir runs/<name>.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ciar.shared.errors import CiarError
from ciar.training.dataset import DatasetError
from ciar.training.icons import SourceError
from ciar.training.settings import ConfigError, RunPaths, load_config

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Configuration of the run (TOML).")]
RunOption = Annotated[Path | None, typer.Option("--run", "-r", help="Folder of the run; default runs/<name>.")]
DEFAULT_CONFIG = Path("training/configs/icons.toml")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What a user can mend ends the command with one line."""
    from ciar.training.onnx_export import ParityError

    try:
        yield
    except (ConfigError, DatasetError, SourceError, CiarError, ParityError, FileNotFoundError, ValueError) as exc:
        typer.secho(f"error: {exc}", err=True, fg=typer.colors.RED)
        raise typer.Exit(1) from exc
    except KeyboardInterrupt as exc:
        typer.secho("stopped; the same command goes on from the last checkpoint", err=True)
        raise typer.Exit(130) from exc


def _step(name: str, config: Path, folder: Path | None) -> None:
    """Run one step of the pipeline."""
    from ciar.training import pair_pipeline, pipeline

    with _one_line_errors():
        settings = load_config(config)
        run = pipeline.Run(settings, RunPaths(folder or Path("runs") / settings.name))
        step = getattr(pipeline, name, None) or getattr(pair_pipeline, name)
        for line in step(run):
            typer.echo(line)


@app.command()
def data(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Read, check and split the data; nothing is downloaded.

    In: what [data] names, an npm tarball of icons or emoji (`npm pack`), or a folder of images with captions
    (metadata.jsonl with file_name and text, or a .txt beside each image); scenes are painted. Out: data/ with images,
    captions.json and credits.json.
    """
    _step("prepare_data", config, run)


@app.command()
def tokenizer(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Train the VQ tokenizer, or go on with it.

    In: data/. Out: tokenizer.pt, tokenizer/ with checkpoint, curve and events, the held-out PSNR.
    """
    _step("make_tokenizer", config, run)


@app.command()
def refine(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Train the picture decoder further, or go on with it; tokens stay as they are.

    In: data/, tokenizer.pt. Out: tokenizer.pt with a better decoder, refine/ with checkpoint, curve and events.
    """
    _step("refine_decoder", config, run)


@app.command()
def cloud(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Train the cloud transformer, or go on with it.

    In: data/, tokenizer.pt. Out: cloud/ with checkpoint, curve and events, the held-out loss.
    """
    _step("make_cloud", config, run)


@app.command()
def laws(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Let the cloud model write the sequences that the drafter learns from, or go on writing.

    In: cloud/, or the bundle that is taken. Out: laws/ with tokens and the guided law of every position.
    """
    _step("make_laws", config, run)


@app.command()
def drafter(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Distil the drafter from the cloud's guided law, or go on with it.

    In: laws/ (written if it is not there), the cloud model. Out: drafter.pt, drafter/ with checkpoint, curve and
    events, a table of how well its scores rank.
    """
    _step("make_drafter", config, run)


@app.command()
def radius(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Compare losses for the drafter's radius, trunk frozen, and keep the one whose U ranks best.

    In: laws/, drafter.pt. Out: drafter.pt with that radius, a table of all.
    """
    _step("compare_radius", config, run)


@app.command()
def features(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Train the interval feature, everything else frozen.

    In: laws/, the cloud model, drafter.pt. Out: features.pt, the held-out loss with and without.
    """
    _step("make_features", config, run)


@app.command()
def export(
    config: ConfigOption = DEFAULT_CONFIG,
    run: RunOption = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder to write; default <run>/bundle.")] = None,
) -> None:
    """Write the bundle and check its graphs against torch.

    In: all that the steps before it wrote. Out: a folder with graphs, weights, manifest and model card, which
    `ciar serve` and `ciar generate` take with --bundle.
    """
    from ciar.training import release

    with _one_line_errors():
        settings = load_config(config)
        folder = run or Path("runs") / settings.name
        for line in release.write_bundle(settings, RunPaths(folder), bundle or folder / "bundle"):
            typer.echo(line)


@app.command()
def sample(
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts; default: a choice for the data.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    run: RunOption = None,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("runs/samples.png"),
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; default: the bundle's.")] = None,
    temperature: Annotated[float, typer.Option()] = 1.0,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Draw a contact sheet with the cloud model alone.

    In: cloud/, tokenizer.pt, prompts. Out: one picture of all.
    """
    from ciar.training import pipeline

    with _one_line_errors():
        settings = load_config(config)
        made = pipeline.Run(settings, RunPaths(run or Path("runs") / settings.name))
        scale = settings.export.guidance if guidance is None else guidance
        for line in pipeline.draw_samples(made, prompts or [], out, scale, temperature, seed):
            typer.echo(line)


if __name__ == "__main__":
    app()
