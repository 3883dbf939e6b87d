"""The steps of a training run over its folder; each reads what the step before it wrote.

Flows in: a `RunConfig` and a folder. Flows out: files in the folder and lines to print. The commands of `training.cli`
are these functions.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cloud_server.transformer import Transformer
from training.captions import Captioner, build_vocabulary
from training.cloud_training import CloudTrainer, TokenData, load_cloud
from training.contact_sheet import pictures, sheet
from training.curation import curate
from training.dataset import SPLITS, Dataset, load_dataset, write_dataset
from training.distillation import LawCache, random_captions, read_data, write_pictures
from training.drafter import Drafter, PairShape
from training.drafter_training import DrafterTrainer, load_drafter, save_drafter
from training.feature_training import FeatureTrainer
from training.icons import read_sources, render_all
from training.metrics import PositionTable, header, rank_correlation, report, score_row, tabulate
from training.radius_comparison import compare
from training.sampling import multinomial, roll_out
from training.settings import RunConfig, RunPaths
from training.tokenizer import Tokenizer
from training.tokenizer_training import evaluate as evaluate_tokenizer
from training.tokenizer_training import load_tokenizer, refine_tokenizer, save_tokenizer, train_tokenizer


@dataclass(frozen=True)
class Run:
    """A configuration and its folder, with what has been made so far."""

    config: RunConfig
    paths: RunPaths

    @cached_property
    def dataset(self) -> Dataset:
        return load_dataset(self.paths.data)

    @cached_property
    def masks(self) -> Tensor:
        """Coverage of all drawings: float32 (N, 64, 64) in [0, 1]."""
        return torch.from_numpy(self.dataset.masks).float() / 255

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.paths.tokenizer)

    @cached_property
    def tokens(self) -> TokenData:
        """All drawings as colourless tokens."""
        shapes = torch.cat([self.tokenizer.shapes(part) for part in self.masks.split(256)])  # (N, T)
        return TokenData(shapes, self.dataset.concept, self.dataset.style)

    @cached_property
    def captioner(self) -> Captioner:
        return Captioner(len(self.dataset.concepts), self.config.captions)

    @cached_property
    def cloud(self) -> Transformer:
        return load_cloud(self.paths.cloud / "cloud.pt")

    @cached_property
    def drafter(self) -> Drafter:
        return load_drafter(self.paths.drafter)

    @property
    def prefix(self) -> int:
        """Number of tokens that the cloud writes first."""
        return int(self.config.export.prefix_rate * self.config.tokenizer.grid**2)

    def split(self, name: str) -> TokenData:
        return self.tokens.subset(self.dataset.rows(name))

    def held_out(self) -> TokenData:
        """All held-out drawings, of both kinds."""
        return self.tokens.subset(np.concatenate([self.dataset.rows(name) for name in SPLITS[1:]]))


def prepare_data(run: Run) -> list[str]:
    """Render, curate and split the drawings."""
    config = run.config
    if config.data.source == "drawn":
        from training.drawn import SET, SHAPES, draw_all

        kept, sets, aliases, lines = draw_all(16, config.tokenizer_training.seed), {SET.prefix: SET}, {}, []
        concepts = sorted(SHAPES)
    else:
        with config.data.concepts.open("rb") as file:
            table = tomllib.load(file)
        sources, sets = read_sources(config.data.tarball, table["concepts"])
        drawings = list(render_all(sources, config.data.ink_size, config.num_threads))
        kept, lines = curate(drawings, config.curation, frozenset(table["left_out"]["groups"]))
        concepts = sorted({k.drawing.concept for k in kept})
        aliases = aliases_of(table, concepts)
    vocabulary = build_vocabulary(concepts, aliases, config.captions.length)
    data = write_dataset(run.paths.data, kept, vocabulary, sets, config.data.split)
    counts = ", ".join(f"{name} {len(data.rows(name))}" for name in SPLITS)
    groups = len({(k.drawing.concept, k.style) for k in kept})
    return [*lines, f"{len(kept)} drawings of {len(concepts)} concepts in {groups} groups; {counts}"]


def aliases_of(table: dict, concepts: list[str]) -> dict[str, str]:
    """Caption aliases: the source names of a concept that a person would also say."""
    barred = set(table["no_alias"]["names"]) | set(concepts)
    named = {name: concept for concept, names in table["concepts"].items() for name in names}
    named |= table.get("extra_aliases", {})
    return {name: concept for name, concept in named.items() if concept in concepts and name not in barred}


def make_tokenizer(run: Run) -> list[str]:
    """Train the tokenizer."""
    torch.set_num_threads(run.config.num_threads)
    train = run.masks[run.dataset.rows("train")]
    held_out = run.masks[np.concatenate([run.dataset.rows(name) for name in SPLITS[1:]])]
    tokenizer, _ = train_tokenizer(train, held_out, run.config.tokenizer, run.config.tokenizer_training)
    save_tokenizer(tokenizer, run.paths.tokenizer)
    score = evaluate_tokenizer(tokenizer, held_out)
    size = sum(p.numel() for p in tokenizer.parameters())
    return [
        f"tokenizer: {size} parameters; held-out PSNR {score.psnr_db:.1f} dB, {score.codes_used} shape tokens used, "
        f"perplexity {score.perplexity:.0f}, ground {score.ground_share:.0%} of the tokens"
    ]


def make_cloud(run: Run) -> list[str]:
    """Train the cloud model, or go on with a run that was stopped."""
    torch.set_num_threads(run.config.num_threads)
    shape = run.config.cloud.complete(run.config.tokenizer, run.captioner.num_phrases, run.config.captions.length)
    trainer = CloudTrainer(
        shape,
        run.tokenizer.quantizer.codes,
        run.split("train"),
        {name: run.split(name) for name in SPLITS[1:] if len(run.dataset.rows(name))},
        run.captioner,
        run.config.cloud_training,
        run.paths.cloud,
    )
    if trainer.checkpoint.exists():
        trainer.resume()
    trainer.run()
    size = sum(p.numel() for p in trainer.model.parameters())
    lines = [f"cloud: {size} parameters, {trainer.samples} samples in {trainer.step} steps, {trainer.elapsed:.0f} s"]
    for name in trainer.held_out:
        right, wrong = trainer.evaluate(name, 10_000)
        lines.append(f"{name}: {right:.4f} nats a token, with another drawing's caption {wrong:.4f}")
    return lines


def held_out_table(run: Run, drafter: Drafter) -> PositionTable:
    """Drafts against the cloud on sequences that cloud and drafter write in turns, held-out captions."""
    rng = np.random.default_rng(run.config.drafter_training.seed + 99)
    condition = random_captions(run.held_out(), run.captioner, run.config.drafter_training.num_held_out, rng)
    share = run.config.drafter_training.mixed_local_share
    cache = write_pictures(run.cloud, condition, run.config.export.guidance, 99, drafter, share)
    return tabulate(drafter, cache, run.prefix)


def make_drafter(run: Run) -> list[str]:
    """Distil the drafter from the cloud's guided law."""
    torch.set_num_threads(run.config.num_threads)
    config, guidance = run.config.drafter_training, run.config.export.guidance
    rng, train = np.random.default_rng(config.seed), run.split("train")
    cache = read_data(run.cloud, train, run.captioner, guidance, config.num_data, rng)
    if config.num_written:
        cache += write_pictures(
            run.cloud, random_captions(train, run.captioner, config.num_written, rng), guidance, config.seed
        )
    shape = run.cloud.config
    pair = PairShape(
        vocab_size=shape.vocab_size,
        grid=shape.grid_width,
        num_phrases=shape.num_phrases,
        caption_length=shape.caption_length,
        feature_dim=shape.feature_dim,
    )
    trainer = DrafterTrainer(config, run.config.drafter, pair)
    if config.num_mixed:
        trainer.run(cache, 0.5 * config.seconds)
        condition = random_captions(train, run.captioner, config.num_mixed, rng)
        cache += _mixed(run, trainer.drafter, condition)
    trainer.run(cache, config.seconds)
    save_drafter(trainer.drafter, run.paths.drafter)
    size = sum(p.numel() for p in trainer.drafter.parameters())
    return [
        f"drafter: {size} parameters, {trainer.step} steps over {len(cache)} sequences in {trainer.elapsed:.0f} s",
        *report(held_out_table(run, trainer.drafter)),
    ]


def _mixed(run: Run, drafter: Drafter, condition: Tensor) -> LawCache:
    config = run.config.drafter_training
    return write_pictures(
        run.cloud, condition, run.config.export.guidance, config.seed + 1, drafter, config.mixed_local_share
    )


def compare_radius(run: Run) -> list[str]:
    """Compare losses for the radius with the trunk frozen; keep the head whose U ranks TV best."""
    torch.set_num_threads(run.config.num_threads)
    config, guidance = run.config.drafter_training, run.config.export.guidance
    rng = np.random.default_rng(config.seed + 7)
    captions = random_captions(run.split("train"), run.captioner, config.num_mixed, rng)
    held_out = random_captions(run.held_out(), run.captioner, config.num_held_out, rng)
    share = config.mixed_local_share
    cache = write_pictures(run.cloud, captions, guidance, 8, run.drafter, share)
    tested = write_pictures(run.cloud, held_out, guidance, 9, run.drafter, share)
    results = compare(run.drafter, cache, tested, run.prefix, config.radius_seconds, config.seed)
    before = tabulate(run.drafter, tested, run.prefix)
    lines = [*header("radius loss, score"), f"| as trained, U | {score_row(before, before.scores['U'])} |"]
    for result in results:
        lines += [f"| {result.name}, {n} | {score_row(result.table, result.table.scores[n])} |" for n in ("U", "Ω")]
    lines.append(f"| max prob | {score_row(before, before.scores['max prob'])} |")
    best = max(results, key=lambda result: rank_correlation(result.table, "U"))
    if rank_correlation(best.table, "U") > rank_correlation(before, "U"):
        save_drafter(best.drafter, run.paths.drafter)
        return [*lines, f"kept: {best.name}"]
    return [*lines, "kept: as trained"]


def make_features(run: Run) -> list[str]:
    """Train the interval feature and keep it if it lowers the held-out loss."""
    torch.set_num_threads(run.config.num_threads)
    trainer = FeatureTrainer(run.cloud, run.drafter, run.captioner, run.config.feature_training, run.prefix)
    trainer.run(run.split("train"))
    score = trainer.evaluate(run.held_out())
    helps = score.with_features < score.without
    if not helps:
        with torch.no_grad():
            trainer.projection.weight.zero_()
    state = {"projection": trainer.projection.weight.detach(), "head": trainer.head.weight.detach()}
    torch.save(state, run.paths.features)
    verdict = "kept" if helps else "no gain: the projection is zero"
    return [f"held-out loss {score.without:.4f} without features, {score.with_features:.4f} with; {verdict}"]


def load_features(path: Path, model: Transformer, drafter: Drafter) -> bool:
    """Put trained feature matrices into a pair; False (and a zero projection) if none were trained."""
    assert model.feature_projection is not None
    with torch.no_grad():
        if not path.is_file():
            model.feature_projection.weight.zero_()
            return False
        state = torch.load(path, weights_only=True)
        model.feature_projection.weight.copy_(state["projection"])
        drafter.feature_head.weight.copy_(state["head"])
    return bool(state["projection"].any())


def refine_decoder(run: Run) -> list[str]:
    """Train the picture decoder further with the codebook frozen, so that existing token sequences stay valid."""
    torch.set_num_threads(run.config.num_threads)
    held_out = run.masks[np.concatenate([run.dataset.rows(name) for name in SPLITS[1:]])]
    before = evaluate_tokenizer(run.tokenizer, held_out)
    refine_tokenizer(run.tokenizer, run.masks[run.dataset.rows("train")], run.config.tokenizer_training)
    after = evaluate_tokenizer(run.tokenizer, held_out)
    save_tokenizer(run.tokenizer, run.paths.tokenizer)
    return [f"decoder: held-out PSNR {before.psnr_db:.1f} dB before, {after.psnr_db:.1f} dB after"]


def sample_prompts(run: Run) -> list[str]:
    """One prompt for every concept, styles and colours in turn."""
    kinds = run.dataset.vocabulary.kinds
    has = {(int(c), int(s)) for c, s in zip(run.dataset.concept, run.dataset.style, strict=True)}
    prompts = []
    for i, concept in enumerate(kinds["concept"]):
        style = i % 2 if (i, i % 2) in has else 1 - i % 2
        words = kinds["colour"][i % len(kinds["colour"])], kinds["style"][style], concept
        prompts.append(" ".join((*words, kinds["ground"][(i * 5 + i // 6) % len(kinds["ground"])])))
    return prompts


def draw_samples(run: Run, prompts: list[str], out: Path, guidance: float, temperature: float, seed: int) -> list[str]:
    """A contact sheet of the cloud model's own pictures, twelve to a row."""
    torch.set_num_threads(run.config.num_threads)
    prompts = prompts or sample_prompts(run)
    condition = torch.from_numpy(np.stack([run.dataset.vocabulary.encode(prompt) for prompt in prompts]))
    choose = multinomial(torch.Generator().manual_seed(seed), temperature)
    tokens, _ = roll_out(run.cloud, condition, guidance, choose)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet(pictures(run.tokenizer, tokens), min(12, len(prompts))).quantize(128).save(out, optimize=True)  # a small file
    return [f"{len(prompts)} pictures, guidance {guidance}, temperature {temperature}, seed {seed}: {out}"]
