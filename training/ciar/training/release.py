"""Writes a release of the pair: the bundle, its model card and a contact sheet.

Flows in: a finished run. Flows out: a bundle folder and lines with what was checked and measured.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from ciar.shared.bundle import Defaults
from ciar.training.bundle_export import write_captions, write_cloud, write_manifest
from ciar.training.card import Measured, card, credit_rows, renewed, words_of
from ciar.training.laws import LawCache
from ciar.training.metrics import report, tabulate
from ciar.training.onnx_export import (
    ParityError,
    check_decoder,
    check_drafter,
    export_decoder,
    export_drafter,
    quantize,
)
from ciar.training.pair_pipeline import held_out_laws
from ciar.training.pipeline import Run, draw_samples, load_features, sample_prompts
from ciar.training.settings import RunConfig, RunPaths

MAX_CENTER_ERROR = 2e-3
"""Largest difference of a centre logit that a float32 graph may show."""
MAX_QUANTIZED_TV = 0.02
"""Mean TV that int8 weights may cost before float32 is shipped instead."""


def write_bundle(config: RunConfig, paths: RunPaths, folder: Path) -> list[str]:
    """Write and check everything. Raises ParityError if a graph differs from its module.

    A run that took the cloud model of a bundle carries over its picture decoder, its words, its sheet and what its card
    says of them.
    """
    torch.set_num_threads(config.num_threads)
    run = Run(config, paths)
    folder.mkdir(parents=True, exist_ok=True)
    with_features = load_features(paths.features, run.cloud, run.drafter)
    run.cloud.load_state_dict({n: t.half().float() for n, t in run.cloud.state_dict().items()})  # as it is shipped
    held_out = held_out_laws(run, run.drafter)
    table = tabulate(run.drafter, held_out, run.prefix, config.export.temperature)
    lines = [*_write_drafter(run, held_out, folder), *_write_decoder(run, held_out, folder), "", *report(table)]
    write_cloud(run.cloud, folder)
    write_captions(run.vocabulary, folder)
    export = config.export
    write_manifest(
        folder,
        run.cloud.config,
        run.drafter.config,
        name=export.name,
        version=export.version,
        defaults=Defaults(**export.model_dump(include=set(Defaults.model_fields))),
        uncertainty=table.scores["U"],
        ambiguity=table.scores["Ω"],
    )
    (folder / "README.md").write_text(_write_card(run, lines, with_features, folder), encoding="utf-8")
    size = sum(file.stat().st_size for file in folder.iterdir())
    return [*lines, "", f"{folder}: {size / 1e6:.1f} MB"]


def _write_drafter(run: Run, held_out: LawCache, folder: Path) -> list[str]:
    """drafter.onnx, checked on a held-out sequence; with int8 weights if they cost little."""
    condition, tokens, _ = held_out.batch(torch.arange(1))
    lines = []
    with TemporaryDirectory() as scratch:
        exact, small = Path(scratch) / "exact.onnx", Path(scratch) / "small.onnx"
        export_drafter(run.drafter, exact)
        parity = check_drafter(exact, run.drafter, tokens[0], condition[0], run.prefix)
        if parity.center_error > MAX_CENTER_ERROR:
            raise ParityError(f"drafter.onnx: a centre logit differs by {parity.center_error:.2g}")
        lines.append(
            f"drafter.onnx float32: largest logit error {parity.center_error:.1e}, {parity.step_ms:.2f} ms a step"
        )
        chosen = exact
        if run.config.export.quantize:
            quantize(exact, small)
            parity = check_drafter(small, run.drafter, tokens[0], condition[0], run.prefix)
            ships = parity.total_variation <= MAX_QUANTIZED_TV
            chosen = small if ships else exact
            lines.append(
                f"drafter.onnx int8: mean TV to float32 {parity.total_variation:.4f}, {parity.step_ms:.2f} ms a step; "
                f"{'shipped' if ships else 'not shipped'}"
            )
        (folder / "drafter.onnx").write_bytes(chosen.read_bytes())
    return lines


def _write_decoder(run: Run, held_out: LawCache, folder: Path) -> list[str]:
    """decoder.onnx, checked on a held-out sequence, or the bundle's own."""
    path = folder / "decoder.onnx"
    if run.config.bundle is not None:
        path.write_bytes((run.config.bundle / "decoder.onnx").read_bytes())
        return [f"decoder.onnx: as in {run.config.bundle}"]
    export_decoder(run.tokenizer, path)
    error = check_decoder(path, run.tokenizer, held_out.tokens[0])
    if error > 1:
        raise ParityError(f"decoder.onnx: a channel differs by {error}")
    return [f"decoder.onnx: largest channel difference {error} of 255"]


def _write_card(run: Run, lines: list[str], with_features: bool, folder: Path) -> str:
    """The model card, Markdown; writes the sheet that it shows."""
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), torch {torch.__version__}"
    measured = Measured(
        size=_size(run.drafter),
        features="carries a trained interval feature" if with_features else "has a zero interval-feature projection",
        config=run.config.name,
        seed=run.config.drafter_training.seed,
        machine=machine,
        lines=lines,
        notes=_notes(run),
    )
    if run.config.bundle is not None:
        sheet, source = (run.config.bundle / name for name in ("samples.png", "README.md"))
        if sheet.is_file():
            (folder / "samples.png").write_bytes(sheet.read_bytes())
        return renewed(source.read_text(encoding="utf-8") if source.is_file() else "", measured)
    prompts, config, shape = sample_prompts(run), run.config, run.cloud.config
    draw_samples(run, prompts, folder / "samples.png", config.export.guidance, config.export.temperature, 0)
    held_out_sets = config.data.split.held_out_sets
    return card(
        measured,
        name=config.export.name,
        guidance=config.export.guidance,
        temperature=config.export.temperature,
        first_prompts="; ".join(prompts[:6]),
        words=words_of(run.vocabulary.kinds),
        shape=f"{shape.num_layers} layers, {shape.dim} wide, {shape.num_heads} heads, V = {shape.vocab_size}",
        cloud_size=_size(run.cloud),
        tokenizer_size=_size(run.tokenizer),
        config=config.name,
        seed=config.cloud_training.seed,
        machine=machine,
        num_pictures=len(run.dataset.keys),
        held_out_share=config.data.split.held_out_share,
        held_out_sets=f", the sets {', '.join(held_out_sets)} as a whole" if held_out_sets else "",
        credits=credit_rows(json.loads((run.paths.data / "credits.json").read_text(encoding="utf-8"))),
    )


def _size(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M"


def _notes(run: Run) -> str:
    """What a person wrote of this run, if anything."""
    path = run.paths.root / "notes.md"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
