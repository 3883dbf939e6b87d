"""Writes a release of the pair: the bundle, its model card and a contact sheet.

Flows in: a finished run. Flows out: a bundle folder and lines with what was checked and measured.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from training.bundle_export import write_cloud, write_manifest
from training.card import TEMPLATE
from training.metrics import report
from training.onnx_export import ParityError, check_decoder, check_drafter, export_decoder, export_drafter, quantize
from training.pipeline import Run, draw_samples, held_out_table, load_features, sample_prompts
from training.settings import RunConfig, RunPaths

MAX_CENTER_ERROR = 2e-3
"""Largest difference of a centre logit that a float32 graph may show."""
MAX_QUANTIZED_TV = 0.02
"""Mean TV that int8 weights may cost before float32 is shipped instead."""


def write_bundle(config: RunConfig, paths: RunPaths, folder: Path) -> list[str]:
    """Write and check everything. Raises ParityError if a graph differs from its module."""
    torch.set_num_threads(config.num_threads)
    run = Run(config, paths)
    folder.mkdir(parents=True, exist_ok=True)
    with_features = load_features(paths.features, run.cloud, run.drafter)
    run.cloud.load_state_dict({n: t.half().float() for n, t in run.cloud.state_dict().items()})  # as it is shipped
    table = held_out_table(run, run.drafter)
    lines = [*_write_graphs(run, folder), "", *report(table), ""]
    write_cloud(run.cloud, folder)
    write_manifest(folder, run.dataset.vocabulary, run.cloud, run.drafter, table, config.export)
    prompts = sample_prompts(run)
    draw_samples(run, prompts, folder / "samples.png", config.export.guidance, config.export.temperature, 0)
    (folder / "README.md").write_text(_card(run, lines, prompts, with_features), encoding="utf-8")
    size = sum(file.stat().st_size for file in folder.iterdir())
    return [*lines, f"{folder}: {size / 1e6:.1f} MB"]


def _write_graphs(run: Run, folder: Path) -> list[str]:
    """drafter.onnx and decoder.onnx, checked on a held-out picture."""
    tokens, labels = run.held_out().paint(np.arange(1), np.random.default_rng(0))
    condition = torch.from_numpy(run.captioner.full(labels))[0]
    lines = []
    with TemporaryDirectory() as scratch:
        exact, small = Path(scratch) / "exact.onnx", Path(scratch) / "small.onnx"
        export_drafter(run.drafter, exact)
        parity = check_drafter(exact, run.drafter, tokens[0], condition, run.prefix)
        if parity.center_error > MAX_CENTER_ERROR:
            raise ParityError(f"drafter.onnx: a centre logit differs by {parity.center_error:.2g}")
        lines.append(
            f"drafter.onnx float32: largest logit error {parity.center_error:.1e}, {parity.step_ms:.2f} ms a step"
        )
        chosen = exact
        if run.config.export.quantize:
            quantize(exact, small)
            parity = check_drafter(small, run.drafter, tokens[0], condition, run.prefix)
            ships = parity.total_variation <= MAX_QUANTIZED_TV
            chosen = small if ships else exact
            lines.append(
                f"drafter.onnx int8: mean TV to float32 {parity.total_variation:.4f}, {parity.step_ms:.2f} ms a step; "
                f"{'shipped' if ships else 'not shipped'}"
            )
        (folder / "drafter.onnx").write_bytes(chosen.read_bytes())
    export_decoder(run.tokenizer, folder / "decoder.onnx")
    error = check_decoder(folder / "decoder.onnx", run.tokenizer, tokens[0])
    if error > 1:
        raise ParityError(f"decoder.onnx: a channel differs by {error}")
    return [*lines, f"decoder.onnx: largest channel difference {error} of 255"]


def _card(run: Run, lines: list[str], prompts: list[str], with_features: bool) -> str:
    """The model card, Markdown."""
    credits = json.loads((run.paths.data / "credits.json").read_text(encoding="utf-8"))
    kinds = run.dataset.vocabulary.kinds
    notes = (run.paths.root / "notes.md").read_text(encoding="utf-8") if (run.paths.root / "notes.md").is_file() else ""
    rows = "\n".join(
        f"| [{c['name']}]({c['author_url']}) | {c['author']} | [{c['licence']}]({c['licence_url']}) | {c['drawings']} |"
        for c in credits
    )
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), no GPU; torch {torch.__version__}"
    shape = run.cloud.config
    return TEMPLATE.format(
        name=run.config.export.name,
        concepts=", ".join(kinds["concept"]),
        colours=", ".join(kinds["colour"]),
        grounds=", ".join(kinds["ground"]),
        num_concepts=len(kinds["concept"]),
        num_drawings=len(run.dataset.keys),
        num_sets=len(credits),
        held_out_sets=", ".join(run.config.data.split.held_out_sets) or "none",
        credits=rows,
        measured="\n".join(lines).strip(),
        notes=notes.strip(),
        machine=machine,
        seed=run.config.cloud_training.seed,
        shape=f"{shape.num_layers} layers, {shape.dim} wide, {shape.num_heads} heads, V = {shape.vocab_size}",
        cloud_size=f"{sum(p.numel() for p in run.cloud.parameters()) / 1e6:.2f} M",
        drafter_size=f"{sum(p.numel() for p in run.drafter.parameters()) / 1e6:.2f} M",
        tokenizer_size=f"{sum(p.numel() for p in run.tokenizer.parameters()) / 1e6:.2f} M",
        guidance=run.config.export.guidance,
        temperature=run.config.export.temperature,
        ask_share=run.config.export.ask_share,
        features="carries a trained interval feature" if with_features else "has a zero interval-feature projection",
        first_prompts="; ".join(prompts[:6]),
    )
