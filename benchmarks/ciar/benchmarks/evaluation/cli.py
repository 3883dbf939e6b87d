"""`ciar evaluate`: how good a pair is. Whether its gate knows which tokens are safe, and what its pictures are worth.

Exit codes: 0 done, goals missed or not; 1 other error; 2 bad request or usage; 6 a bundle that does not fit together;
130 interrupted (finished roll-outs are kept).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from tqdm import tqdm

import ciar.training
from ciar.benchmarks.commands import describe, fail, parse_seeds
from ciar.benchmarks.evaluation.coverage import bounds_reader, covered_mass
from ciar.benchmarks.evaluation.goals import CIAR
from ciar.benchmarks.evaluation.heldout import Loss, held_out_losses, held_out_sources
from ciar.benchmarks.evaluation.judges import Judges, prepare_judges
from ciar.benchmarks.evaluation.pictures import Picture, choose_pictures, has_kinds
from ciar.benchmarks.evaluation.plots import write_contact_sheet, write_grid, write_risk_coverage
from ciar.benchmarks.evaluation.quality import NUM_DIRECTIONS, QualityReport, judge_pictures
from ciar.benchmarks.evaluation.report import CLOUD, CONTEXTS, Evaluation
from ciar.benchmarks.evaluation.rollout import Table, default_sampling, load_pair, plays
from ciar.benchmarks.evaluation.scorecost import VOCAB_SIZES, graph_cost, score_costs
from ciar.benchmarks.evaluation.selective import by_group, judge
from ciar.benchmarks.evaluation.tables import draw_tables
from ciar.benchmarks.journal import require_writable
from ciar.benchmarks.machine import environment
from ciar.benchmarks.report import WIDTH
from ciar.cloud_server.runner import load_transformer
from ciar.cloud_server.settings import EMBEDDED_BUNDLE
from ciar.device_client.cli import EXIT_CODES
from ciar.device_client.decoder import NAME as DECODER
from ciar.device_client.decoder import Decoder
from ciar.device_client.gates import make_gate
from ciar.shared.bundle import Manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import CiarError, InvalidRequest

FULL_PROMPTS, FULL_SEEDS = 50, "0,1,2,3,4"
QUICK_PROMPTS, QUICK_SEEDS = 8, "0,1"
CONFIG = Path(ciar.training.__file__).parent / "configs" / "icons.toml"
MAX_GROUP = 1_000_000
"""Largest number of a repetition; a picture's own seed is made of it."""
MIN_JUDGED = 4
"""Pictures of which a Fréchet distance can be computed at all, in two dimensions; a full run has enough for 64."""


def evaluate(
    bundle: Annotated[Path | None, typer.Option(help="Folder of the pair; default: the embedded one.")] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, help=f"Held-out prompts for each seed; default {FULL_PROMPTS}.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help=f"Repetitions, each with prompts and noise of its own; default {FULL_SEEDS}.")
    ] = None,
    gate: Annotated[str | None, typer.Option(help="Gate in place of the pair's own, such as quantile:0.2.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Prepared drawings, for the pictures' quality; default runs/<pair>/data.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run that trained the pair, for the held-out loss; default runs/<pair>.")
    ] = None,
    config: Annotated[Path, typer.Option(help="Configuration of that run (TOML).")] = CONFIG,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help=f"{QUICK_PROMPTS} prompts, seeds {QUICK_SEEDS}; what needs --data or --run only so."
        ),
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a pass of the cloud model.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for evaluate.json, evaluate.md, plots and kept roll-outs.")] = Path(
        "out/evaluate"
    ),
) -> None:
    """Evaluate a pair on prompts that training never saw: agreement, gate, intervals, cost of scores, quality.

    Prints goals and agreement, and one JSON line last. Exit codes: 1 other error, 2 bad request, 6 a bundle that does
    not fit together, 130 interrupted (finished roll-outs are kept: the same command goes on).
    """
    try:
        require_writable(out)
        groups = _groups(seeds or (QUICK_SEEDS if quick else FULL_SEEDS))
        num_prompts = prompts or (QUICK_PROMPTS if quick else FULL_PROMPTS)
        evaluation = _evaluate(
            bundle or EMBEDDED_BUNDLE, num_prompts, groups, gate, data, run, config, out, threads, quick
        )
        summary = json.dumps(evaluation.summary(), allow_nan=False)
        _write(out, evaluation)
    except CiarError as error:
        fail(str(error), EXIT_CODES.get(type(error), 1))
    except KeyboardInterrupt:
        fail(f"interrupted; finished roll-outs are kept in {out}: the same command goes on", 130)
    console = Console(width=WIDTH, highlight=False)
    for table in evaluation.tables():
        console.print(table)
        console.print()
    if evaluation.quality_note:
        console.print(f"quality left out: {evaluation.quality_note}")
    console.print(
        f"kept in {out}: evaluate.md, evaluate.json, risk_coverage.png, tv_by_position.png, contact_sheet.png"
    )
    print(summary)


def _evaluate(
    bundle: Path,
    num_prompts: int,
    groups: Sequence[int],
    gate: str | None,
    data: Path | None,
    run: Path | None,
    config: Path,
    out: Path,
    threads: int,
    quick: bool,
) -> Evaluation:
    torch.set_num_threads(threads)
    pair = load_pair(bundle, num_threads=threads)
    manifest = pair.manifest
    pictures = choose_pictures(pair.vocabulary, num_prompts, groups)
    chosen = plays(manifest, gate)
    sampling = default_sampling(manifest)
    bounds_of = bounds_reader(bundle, manifest)
    make_gate(gate or manifest.defaults.gate, manifest)  # whatever is wrong with it is told before the work
    judges, note = _judges(pair.vocabulary, manifest, data, len(pictures), out, quick)
    losses, losses_note = _losses(bundle, manifest, run, config, quick)
    tables = draw_tables(pair, chosen, pictures, sampling, out / "rollouts")
    shown = _decode(bundle, tables)
    _draw_plots(out, manifest, tables, shown, pictures)
    quality = None if judges is None else _quality(shown, pictures, judges)
    own = tables[CLOUD]
    span = slice(own.num_prefix, None)
    return Evaluation(
        configuration={
            "bundle": describe(manifest),
            "num_pictures": len(pictures),
            "num_prompts": num_prompts,
            "groups": list(groups),
            "held_out": has_kinds(pair.vocabulary),
            "prompts": [picture.prompt for picture in pictures],
            "seeds": [picture.seed for picture in pictures],
            "gate": next(play.gate for play in chosen if play.name == CIAR),
            "verify_share": manifest.defaults.verify_share,
            "num_prefix": own.num_prefix,
            "sampling": sampling.model_dump(mode="json", exclude={"seed"}),
            "environment": environment(),
        },
        selective={name: judge(table) for name, table in tables.items()},
        same_as_cloud={name: float((table.tokens == own.tokens)[:, span].mean()) for name, table in tables.items()},
        mass_inside=by_group(covered_mass(pair, bounds_of, pictures, own, sampling.guidance), own.group),
        score_costs={size: score_costs(size, rounds=5 if quick else 15) for size in tqdm(VOCAB_SIZES, disable=None)},
        graph_cost=graph_cost(bundle, rounds=40 if quick else 150),
        losses=losses,
        losses_note=losses_note,
        quality=quality,
        quality_note=note,
    )


def _groups(text: str) -> list[int]:
    groups = parse_seeds(text)
    if max(groups) > MAX_GROUP:
        raise InvalidRequest(f"seeds: must be at most {MAX_GROUP} (got {max(groups)})")
    return groups


def _decode(bundle: Path, tables: Mapping[str, Table]) -> dict[str, NDArray[np.uint8]]:
    """The pictures of each play: uint8 (N, H, W, 3)."""
    decoder = Decoder(bundle / DECODER)
    return {
        name: np.stack([np.asarray(decoder(tokens)) for tokens in tqdm(table.tokens, desc="pixels", disable=None)])
        for name, table in tables.items()
    }


def _judges(
    vocabulary: CaptionVocabulary, manifest: Manifest, data: Path | None, num_pictures: int, out: Path, quick: bool
) -> tuple[Judges | None, str]:
    """Judges of the pictures, or why there are none.

    Raises InvalidRequest if drawings were asked for by `data` and do not serve.
    """
    folder = data or Path("runs") / manifest.name / "data"
    if data is None and quick:
        return None, "a quick run judges pictures only if --data names prepared drawings"
    if not (folder / "drawings.npz").is_file():
        if data is not None:
            raise InvalidRequest(f"data: {folder} holds no prepared drawings; make them with `ciar train data`")
        return None, f"no prepared drawings in {folder}; make them with `ciar train data`, or name them with --data"
    if not has_kinds(vocabulary):
        return None, "the judges look for concept, style, colour and ground; the bundle's words are of other kinds"
    if CaptionVocabulary.load(folder / "captions.json").kinds != vocabulary.kinds:
        sentence = f"the drawings in {folder} have other words than the bundle; --data names those it was trained on"
        if data is not None:
            raise InvalidRequest(f"data: {sentence}")
        return None, sentence
    if num_pictures < MIN_JUDGED:
        raise InvalidRequest(f"prompts: {num_pictures} pictures are too few to judge; draw at least {MIN_JUDGED}")
    return prepare_judges(folder, out / "judges"), ""


def _losses(
    bundle: Path, manifest: Manifest, run: Path | None, config: Path, quick: bool
) -> tuple[dict[str, Loss], str]:
    """Held-out losses of the cloud model, or why there are none.

    Raises InvalidRequest if a run was asked for and does not serve.
    """
    folder = run or Path("runs") / manifest.name
    if run is None and quick:
        return {}, "a quick run measures it only if --run names the run that trained the pair"
    try:
        return held_out_losses(load_transformer(bundle), held_out_sources(folder, config)), ""
    except InvalidRequest as error:
        if run is not None:
            raise
        return {}, f"{folder} does not serve ({error}); --run names the run that trained the pair"


def _quality(shown: Mapping[str, NDArray[np.uint8]], pictures: Sequence[Picture], judges: Judges) -> QualityReport:
    labels = np.array([picture.labels for picture in pictures], np.int64)  # (N, 4)
    return judge_pictures(shown, labels, judges, num_directions=min(NUM_DIRECTIONS, len(pictures) // 2))


def _draw_plots(
    out: Path,
    manifest: Manifest,
    tables: Mapping[str, Table],
    shown: Mapping[str, NDArray[np.uint8]],
    pictures: Sequence[Picture],
) -> None:
    contexts = {
        {CIAR: "in the collaboration", CLOUD: "on the cloud's own sequences"}[name]: tables[name] for name in CONTEXTS
    }
    write_risk_coverage(contexts, out / "risk_coverage.png")
    write_grid(contexts, manifest.grid_height, manifest.grid_width, out / "tv_by_position.png")
    write_contact_sheet(shown, [picture.prompt for picture in pictures], out / "contact_sheet.png")


def _write(out: Path, evaluation: Evaluation) -> None:
    held: dict[str, Any] = evaluation.to_dict()
    (out / "evaluate.json").write_text(json.dumps(held, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (out / "evaluate.md").write_text(evaluation.markdown(), encoding="utf-8")
