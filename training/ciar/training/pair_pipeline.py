"""The steps that make a drafter for a cloud model: laws, drafter, radius, features; each reads what the last one wrote.

Flows in: a `Run`, whose cloud model was trained in its folder or comes with a bundle. Flows out: files in the folder
and lines to print. No drawing is read: the cloud writes the sequences that the drafter learns from.
"""

from __future__ import annotations

import numpy as np
import torch

from ciar.cloud_server.transformer import Transformer
from ciar.training.drafter import Drafter, PairShape
from ciar.training.drafter_training import DrafterTrainer, save_drafter
from ciar.training.feature_training import FeatureTrainer, Variant
from ciar.training.laws import LawCache, Prompter, by_both, write_shards
from ciar.training.metrics import header, report, score_row, tabulate
from ciar.training.pipeline import Run
from ciar.training.radius_comparison import VARIANTS, freeze, train_radius
from ciar.training.ranking import aurc
from ciar.training.sampling import multinomial

FEATURE_VARIANTS = (("own", 16), ("drafted", 16), ("drafted", 4))


def written_laws(run: Run, most: int | None = None) -> LawCache:
    """Sequences by the cloud alone, from disk or written now; all that are configured, or the first `most`."""
    config = run.laws
    return write_shards(
        run.paths.laws, "written", min(most or config.num_written, config.num_written), run.writer,
        run.config.export.guidance,
        Prompter(run.vocabulary, config), config, lambda _condition, t, generator: multinomial(generator, t),
    )  # fmt: skip


def mixed_laws(run: Run, kind: str, count: int, drafter: Drafter) -> LawCache:
    """Sequences as a gate would share the work: the drafter's where it is surest, by its quantile on written ones."""
    config = run.laws
    with torch.inference_mode():
        condition, tokens, _ = written_laws(run, run.laws.shard_size).batch(slice(64))
        sureness = torch.softmax(drafter(condition, tokens).center, -1).max(-1).values[:, run.prefix :]
        threshold = sureness.flatten().quantile(1 - config.local_share).item()
    return write_shards(
        run.paths.laws, kind, count, run.writer, run.config.export.guidance,
        Prompter(run.vocabulary, config, held_out=kind == "held-out"), config,
        lambda condition, t, generator: by_both(drafter, condition, threshold, t, generator),
    )  # fmt: skip


def make_laws(run: Run) -> list[str]:
    """Let the cloud write what the drafter learns from."""
    torch.set_num_threads(run.config.num_threads)
    cache = written_laws(run)
    entropy = np.mean([-(p.exp() * p).sum(-1).mean().item() for _, _, p in cache.batches(64)])
    return [f"{len(cache)} sequences by the cloud in {run.paths.laws}; mean entropy of its law {entropy:.2f} nats"]


def make_drafter(run: Run) -> list[str]:
    """Distil the drafter from the cloud's guided law."""
    torch.set_num_threads(run.config.num_threads)
    config = run.config.drafter_training
    written = written_laws(run)
    trainer = DrafterTrainer(
        config, run.config.drafter, pair_shape(run.cloud), run.config.export.temperature, run.paths.drafter_run
    )
    trainer.run(written, config.mixed_from)
    cache = LawCache.join([written, *_mixed(run, trainer.drafter)])
    trainer.run(cache, 1.0)
    save_drafter(trainer.drafter, run.paths.drafter)
    size = sum(p.numel() for p in trainer.drafter.parameters())
    return [
        f"drafter: {size} parameters, {trainer.state.step} steps over {len(cache)} sequences in "
        f"{trainer.state.elapsed:.0f} s",
        *report(tabulate(trainer.drafter, held_out_laws(run, trainer.drafter), run.prefix, trainer.temperature)),
    ]


def _mixed(run: Run, drafter: Drafter) -> list[LawCache]:
    count = run.laws.num_mixed
    return [mixed_laws(run, "mixed", count, drafter)] if count else []


def held_out_laws(run: Run, drafter: Drafter) -> LawCache:
    """Sequences of held-out combinations that cloud and drafter wrote: what figures are measured on."""
    return mixed_laws(run, "held-out", run.laws.num_held_out, drafter)


def compare_radius(run: Run) -> list[str]:
    """Compare losses for the radius, trunk frozen, and keep the one whose U leaves the least distance among accepted.

    The choice is made on the first half of the held-out sequences, the figures are of the second.
    """
    torch.set_num_threads(run.config.num_threads)
    config, temperature = run.config.radius, run.config.export.temperature
    cache = LawCache.join([written_laws(run), *_mixed(run, run.drafter)])
    rows = torch.randperm(len(cache), generator=torch.Generator().manual_seed(config.seed))[: config.num_sequences]
    positions = freeze(run.drafter, cache.subset(rows), run.prefix)
    held_out = held_out_laws(run, run.drafter)
    to_choose, to_report = (held_out.subset(part) for part in torch.arange(len(held_out)).chunk(2))
    lines, best, kept = header("radius loss, score"), float("inf"), None
    for name, weights in VARIANTS.items():
        drafter = train_radius(run.drafter, positions, weights, config, temperature)
        table = tabulate(drafter, to_report, run.prefix, temperature)
        lines += [f"| {name}, {n} | {score_row(table, table.scores[n])} |" for n in ("U", "Ω")]
        choice = tabulate(drafter, to_choose, run.prefix, temperature)
        if (area := aurc(choice.scores["U"], choice.total_variation)) < best:
            best, kept = area, (name, drafter)
    assert kept is not None
    lines += [f"| {n} | {score_row(table, table.scores[n])} |" for n in ("entropy", "max prob", "oracle TV")]
    save_drafter(kept[1], run.paths.drafter)
    return [*lines, f"kept: {kept[0]}"]


def make_features(run: Run) -> list[str]:
    """Compare what the interval feature may learn from, and keep the variant that lowers its held-out loss most."""
    torch.set_num_threads(run.config.num_threads)
    written = written_laws(run)
    held_out = held_out_laws(run, run.drafter)
    lines = ["| φ is trained on | held-out loss without | with | gain |", "|---|---|---|---|"]
    rank = run.cloud.config.feature_dim
    zeros = [torch.zeros(run.cloud.config.dim, rank), torch.zeros_like(run.drafter.feature_head.weight)]
    best, kept, weights = 0.0, "none helps: the projection is zero", zeros
    for reads, most in FEATURE_VARIANTS:
        variant = Variant(reads, min(most, rank))
        trainer = FeatureTrainer(
            run.cloud, run.drafter, variant, run.config.feature_training, run.prefix,
            run.config.export.temperature, run.paths.root / "features",
        )  # fmt: skip
        trainer.run(written)
        score = trainer.evaluate(held_out)
        lines.append(f"| {variant.name} | {score.without:.4f} | {score.with_features:.4f} | {score.gain:.4f} |")
        if score.gain > best:
            best, kept, weights = score.gain, variant.name, [w.detach().clone() for w in trainer.trained]
    torch.save(dict(zip(("projection", "head"), weights, strict=True)), run.paths.features)
    return [*lines, f"kept: {kept}"]


def pair_shape(model: Transformer) -> PairShape:
    """What a drafter must share with a cloud model. Raises ValueError for a grid that is not square."""
    shape = model.config
    if shape.grid_height != shape.grid_width:
        raise ValueError(f"cloud: a grid of {shape.grid_height} × {shape.grid_width}; the drafter's must be square")
    return PairShape(
        vocab_size=shape.vocab_size,
        grid=shape.grid_width,
        num_phrases=shape.num_phrases,
        caption_length=shape.caption_length,
        feature_dim=shape.feature_dim,
    )
