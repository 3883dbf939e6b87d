"""Commands of `training`: each step of a run is one command over its folder.

python -m training.cli data      --config training/configs/icons.toml
… tokenizer, cloud, drafter, features, sample, export
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.dataset import DatasetError
from training.icons import SourceError
from training.settings import ConfigError, RunPaths, load_config

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Configuration of the run (TOML).")]
RunOption = Annotated[Path | None, typer.Option("--run", "-r", help="Folder of the run; default runs/<name>.")]
DEFAULT_CONFIG = Path("training/configs/icons.toml")


def _step(name: str, config: Path, folder: Path | None) -> None:
    """Run one step of the pipeline; errors that a user can mend end the command with one line."""
    from training import pipeline

    try:
        settings = load_config(config)
        run = pipeline.Run(settings, RunPaths(folder or Path("runs") / settings.name))
        for line in getattr(pipeline, name)(run):
            typer.echo(line)
    except (ConfigError, DatasetError, SourceError, FileNotFoundError, ValueError) as exc:
        typer.secho(f"error: {exc}", err=True, fg=typer.colors.RED)
        raise typer.Exit(1) from exc


@app.command()
def data(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Render, curate and split the drawings."""
    _step("prepare_data", config, run)


@app.command()
def tokenizer(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Train the VQ tokenizer."""
    _step("make_tokenizer", config, run)


@app.command()
def refine(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Train the picture decoder further; tokens stay as they are."""
    _step("refine_decoder", config, run)


@app.command()
def cloud(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Train the cloud transformer; goes on where a stopped run left off."""
    _step("make_cloud", config, run)


@app.command()
def drafter(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Distil the drafter from the cloud's guided law."""
    _step("make_drafter", config, run)


@app.command()
def radius(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Compare losses for the drafter's radius, trunk frozen; keep the one whose U ranks best."""
    _step("compare_radius", config, run)


@app.command()
def features(config: ConfigOption = DEFAULT_CONFIG, run: RunOption = None) -> None:
    """Train the interval feature, everything else frozen."""
    _step("make_features", config, run)


@app.command()
def export(
    config: ConfigOption = DEFAULT_CONFIG,
    run: RunOption = None,
    bundle: Annotated[Path, typer.Option(help="Folder to write.")] = Path("bundles/icons"),
) -> None:
    """Write the bundle: graphs, weights, manifest, model card; checks the graphs against torch."""
    from training import release

    try:
        settings = load_config(config)
        for line in release.write_bundle(settings, RunPaths(run or Path("runs") / settings.name), bundle):
            typer.echo(line)
    except (ConfigError, DatasetError, FileNotFoundError, ValueError) as exc:
        typer.secho(f"error: {exc}", err=True, fg=typer.colors.RED)
        raise typer.Exit(1) from exc


@app.command()
def sample(
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts; default: one of every concept.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    run: RunOption = None,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("runs/samples.png"),
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; default: the bundle's.")] = None,
    temperature: Annotated[float, typer.Option()] = 1.0,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Draw a contact sheet with the cloud model alone."""
    from training import pipeline

    try:
        settings = load_config(config)
        made = pipeline.Run(settings, RunPaths(run or Path("runs") / settings.name))
        scale = settings.export.guidance if guidance is None else guidance
        for line in pipeline.draw_samples(made, prompts or [], out, scale, temperature, seed):
            typer.echo(line)
    except (ConfigError, DatasetError, FileNotFoundError, ValueError) as exc:
        typer.secho(f"error: {exc}", err=True, fg=typer.colors.RED)
        raise typer.Exit(1) from exc


if __name__ == "__main__":
    app()
