"""What the cloud model of a run of scenes is worth: facts of the captions that a judge sees, and distances.

In: a run with a cloud model. Out: a table and a contact sheet. Beside the cloud model stand fresh pictures of the same
captions, the best that can be, and what the tokenizer makes of them, the best that its tokens can say.

`python -m ciar.benchmarks.evaluation.scenes --run runs/scenes`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

import ciar.training
from ciar.benchmarks.evaluation.distances import frechet_distance, kernel_distance, principal_basis
from ciar.benchmarks.evaluation.features import features_of, load_network
from ciar.benchmarks.evaluation.scene_judge import (
    Confirmed,
    Pictures,
    SceneJudgeConfig,
    fresh,
    prepare_scene_judge,
    scene_of,
    table,
)
from ciar.training.contact_sheet import pictures as decode
from ciar.training.contact_sheet import sheet
from ciar.training.picture_set import HELD_OUT_PROMPTS
from ciar.training.pipeline import Run
from ciar.training.sampling import multinomial, roll_out
from ciar.training.scenes.painter import paint_scene
from ciar.training.settings import RunPaths, load_config

CONFIG = Path(ciar.training.__file__).parent / "configs" / "scenes.toml"
NUM_DIRECTIONS = 32
"""Principal directions of the fresh pictures' features in which the Fréchet distance is taken."""
_CHECK_SEED = 1_000_033
"""Of fresh pictures on which the judge's own accuracy is measured."""


def main(
    run: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/scenes"),
    config: Annotated[Path, typer.Option(help="Configuration of the run (TOML).")] = CONFIG,
    count: Annotated[int, typer.Option(min=4, help="Pictures of held-out captions.")] = 96,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; default: the configuration's.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Default: the configuration's.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the judge and a contact sheet.")] = Path("out/scenes"),
) -> None:
    """Judge the cloud model's pictures of held-out captions, beside fresh ones and what the tokenizer makes of them."""
    settings = load_config(config)
    torch.set_num_threads(settings.num_threads)
    made, export = Run(settings, RunPaths(run)), settings.export
    judge = prepare_scene_judge(out)
    prompts = held_out_prompts(made, count, seed)
    scale = export.guidance if guidance is None else guidance
    heat = export.temperature if temperature is None else temperature
    shown = _shown(made, prompts, scale, heat, seed)
    out.mkdir(parents=True, exist_ok=True)
    sheet(shown["cloud"], 12).save(out / "samples.png")
    (out / "samples.txt").write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
    pictures, scenes = fresh(SceneJudgeConfig().num_checked, _CHECK_SEED)
    columns = {f"{len(scenes)} fresh": judge.confirmed(pictures, scenes)}
    columns |= {name: judge.confirmed(p, [scene_of(prompt) for prompt in prompts]) for name, p in shown.items()}
    for line in report(columns, shown):
        typer.echo(line)


def held_out_prompts(run: Run, count: int, seed: int) -> list[str]:
    """Different captions that no training picture has, at most `count`."""
    prompts = (run.paths.data / HELD_OUT_PROMPTS).read_text(encoding="utf-8").splitlines()
    return [prompts[i] for i in np.random.default_rng(seed).permutation(len(prompts))[:count]]


def _shown(run: Run, prompts: Sequence[str], guidance: float, temperature: float, seed: int) -> dict[str, Pictures]:
    """One picture for each prompt from every source; the first two differ in all that captions leave open."""
    side = run.config.tokenizer.image_size
    one, other = (
        np.stack([paint_scene(scene_of(p), np.random.default_rng((seed, i, k)), side) for i, p in enumerate(prompts)])
        for k in (0, 1)
    )
    with torch.inference_mode():
        images = torch.from_numpy(one).permute(0, 3, 1, 2).float() / 255
        rebuilt = decode(run.tokenizer, run.tokenizer.indices(images))
    condition = torch.from_numpy(np.stack([run.vocabulary.encode(prompt) for prompt in prompts]))
    choose = multinomial(torch.Generator().manual_seed(seed), temperature)
    tokens, _ = roll_out(run.writer, condition, guidance, choose)
    cloud = decode(run.tokenizer, tokens)
    return {"same captions, fresh": one, "again": other, "through the tokenizer": rebuilt, "cloud": cloud}


def report(columns: Mapping[str, Confirmed], shown: Mapping[str, Pictures]) -> list[str]:
    """Markdown: confirmed facts of every column, then the distances of all but the first shown pictures to these."""
    network = load_network()
    (_, reference), *others = ((name, features_of(network, pictures)) for name, pictures in shown.items())
    basis = principal_basis(reference, min(NUM_DIRECTIONS, len(reference) // 2))
    lines = [
        *table(dict(columns)),
        "",
        "| to fresh pictures of the same captions | Fréchet | kernel |",
        "|---|---|---|",
    ]
    for name, features in others:
        frechet, kernel = frechet_distance(basis(reference), basis(features)), kernel_distance(reference, features)
        lines.append(f"| {name} | {frechet:.2f} | {kernel:.4f} |")
    return lines


if __name__ == "__main__":
    typer.run(main)
