"""The steps of a training run over its folder; each reads what the step before it wrote.

Flows in: a `RunConfig` and a folder. Flows out: files in the folder and lines to print. The commands of `training.cli`
are these functions.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ciar.cloud_server.runner import load_transformer
from ciar.cloud_server.transformer import Transformer, TransformerConfig
from ciar.shared.bundle import Manifest, load_manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.training.cloud_training import CloudTrainer, load_cloud
from ciar.training.contact_sheet import pictures, sheet
from ciar.training.dataset import SPLITS, Dataset
from ciar.training.domains import Domain, load_domain
from ciar.training.drafter import Drafter
from ciar.training.drafter_training import load_drafter
from ciar.training.laws import LawsConfig
from ciar.training.picture_set import HELD_OUT_PROMPTS, PROMPTS, PictureSet
from ciar.training.preparation import prepare
from ciar.training.run_state import differences, pick_device
from ciar.training.sampling import multinomial, roll_out
from ciar.training.settings import RunConfig, RunPaths
from ciar.training.token_data import TokenSource
from ciar.training.tokenizer import Tokenizer, TokenizerConfig, VQTokenizer
from ciar.training.tokenizer_training import (
    DecoderTrainer,
    TokenizerTrainer,
    cached_indices,
    load_tokenizer,
    save_tokenizer,
)
from ciar.training.tokenizer_training import evaluate as evaluate_tokenizer


@dataclass(frozen=True)
class Run:
    """A configuration and its folder, with what has been made so far."""

    config: RunConfig
    paths: RunPaths

    @cached_property
    def domain(self) -> Domain:
        """The data set and what kind it is of."""
        return load_domain(self.paths.data, self.config)

    @property
    def dataset(self) -> Dataset | PictureSet:
        return self.domain.dataset

    @property
    def device(self) -> torch.device:
        """Raises ValueError if the configured one is not there."""
        return pick_device(self.config.device)

    @cached_property
    def tokenizer(self) -> VQTokenizer:
        return load_tokenizer(self.paths.tokenizer)

    @cached_property
    def sequences(self) -> TokenSource:
        """All data as tokens with captions. Raises ValueError if the tokenizer is not of this configuration."""
        require_tokenizer(self.tokenizer, self.domain.tokenizer_kind, self.config)
        indices = cached_indices(self.tokenizer, self.domain.images, self.device, self.paths.tokens)  # (N, T)
        return self.domain.source(indices)

    @cached_property
    def vocabulary(self) -> CaptionVocabulary:
        """The words of the bundle that is taken, or of the data set."""
        bundle = self.config.bundle
        return self.dataset.vocabulary if bundle is None else CaptionVocabulary.load(bundle / "captions.json")

    @cached_property
    def cloud(self) -> Transformer:
        """The cloud model of the bundle that is taken, or of this run.

        Raises InvalidRequest, PairMismatch for a bundle that cannot be served, ValueError if its words do not fit, or
        tokenizer and words of this run.
        """
        if self.config.bundle is None:
            model = load_cloud(self.paths.cloud / "cloud.pt")
            require_own(model.config, self.tokenizer.config, self.vocabulary)
            return model
        manifest, model = load_manifest(self.config.bundle), load_transformer(self.config.bundle)
        require_fit(model.config, manifest, self.vocabulary)
        return model

    @cached_property
    def writer(self) -> Transformer:
        """The cloud model on the configured device, for roll-outs."""
        return self.cloud if self.device.type == "cpu" else copy.deepcopy(self.cloud).to(self.device)

    @cached_property
    def drafter(self) -> Drafter:
        return load_drafter(self.paths.drafter)

    @property
    def prefix(self) -> int:
        """Number of tokens that the cloud writes first."""
        return int(self.config.export.prefix_rate * self.cloud.config.num_tokens)

    @property
    def laws(self) -> LawsConfig:
        """How sequences are written; for captions that people wrote, the prompts are those of the data."""
        prompts = self.paths.data / PROMPTS
        if self.config.laws.prompts is not None or self.config.bundle is not None or not prompts.is_file():
            return self.config.laws
        held_out = self.paths.data / HELD_OUT_PROMPTS
        apart = held_out if held_out.is_file() and held_out.stat().st_size else None
        return self.config.laws.model_copy(update={"prompts": prompts, "held_out_prompts": apart})

    def rows(self, *splits: str) -> np.ndarray:
        """Row numbers of some splits together."""
        return np.concatenate([self.dataset.rows(name) for name in splits])

    def images(self, *splits: str) -> Tensor:
        """Images of some splits: uint8 (N, …, H, W)."""
        rows = self.rows(*splits)
        if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            return self.domain.images[int(rows[0]) : int(rows[0]) + len(rows)]  # a view: nothing is read yet
        return self.domain.images[torch.from_numpy(rows)]

    def split(self, name: str) -> TokenSource:
        return self.sequences.subset(self.dataset.rows(name))


def prepare_data(run: Run) -> list[str]:
    """Read, check and split the data."""
    run.paths.tokens.unlink(missing_ok=True)
    return prepare(run.config, run.paths.data)


def require_tokenizer(tokenizer: VQTokenizer, kind: str, config: RunConfig) -> None:
    """Raises ValueError that names the field in which a saved tokenizer is not the configured one, and both values."""
    if tokenizer.kind != kind:
        raise ValueError(f"tokenizer: it was trained on {tokenizer.kind}, the data set holds {kind}; train it again")
    held, wanted = tokenizer.config.model_dump(), config.tokenizer.model_dump()
    if found := differences(held, wanted):
        raise ValueError(f"tokenizer.{found[0]}; go back to it, or train the tokenizer in another --run folder")


def make_tokenizer(run: Run) -> list[str]:
    """Train the tokenizer, or go on with a run that was stopped."""
    torch.set_num_threads(run.config.num_threads)
    config, domain, device = run.config, run.domain, run.device
    trainer = TokenizerTrainer(
        domain.tokenizer_kind, config.tokenizer, run.images("train"), run.images(*SPLITS[1:]),
        config.tokenizer_training, run.paths.tokenizer_run, device,
    )  # fmt: skip
    trainer.state.resume()
    tokenizer = trainer.run()
    score = evaluate_tokenizer(tokenizer, run.images(*SPLITS[1:]))
    save_tokenizer(tokenizer, run.paths.tokenizer)
    size = sum(p.numel() for p in tokenizer.parameters())
    return [
        f"tokenizer: {size} parameters, {trainer.state.step} steps in {trainer.state.elapsed:.0f} s; held-out PSNR "
        f"{score.psnr_db:.1f} dB, {score.codes_used} codes used, perplexity {score.perplexity:.0f}, "
        f"{score.ground_share:.0%} of the cells without a code"
    ]


def make_cloud(run: Run) -> list[str]:
    """Train the cloud model, or go on with a run that was stopped."""
    torch.set_num_threads(run.config.num_threads)
    config, device = run.config, run.device
    vocabulary = run.dataset.vocabulary
    shape = config.cloud.complete(config.tokenizer, len(vocabulary.phrases), vocabulary.length)
    rows = run.tokenizer.token_rows(shape.dim, torch.Generator().manual_seed(config.cloud_training.seed))
    trainer = CloudTrainer(
        shape, rows, run.split("train"),
        {name: run.split(name) for name in SPLITS[1:] if len(run.dataset.rows(name))},
        config.cloud_training, run.paths.cloud, device,
    )  # fmt: skip
    trainer.state.resume()
    trainer.run()
    size = sum(p.numel() for p in trainer.model.parameters())
    lines = [f"cloud: {size} parameters, {trainer.state.step} steps in {trainer.state.elapsed:.0f} s"]
    for name in trainer.held_out:
        right, wrong = trainer.evaluate(name, 10_000)
        lines.append(f"{name}: {right:.4f} nats a token, with another picture's caption {wrong:.4f}")
    return lines


def require_own(shape: TransformerConfig, tokenizer: TokenizerConfig, vocabulary: CaptionVocabulary) -> None:
    """Raises ValueError that names the first figure in which a cloud model is not of its run's tokenizer and words."""
    pairs = {
        "vocab_size": (shape.vocab_size, tokenizer.vocab_size, "tokenizer.pt"),
        "grid": (shape.grid_width, tokenizer.grid, "tokenizer.pt"),
        "caption_length": (shape.caption_length, vocabulary.length, "captions.json"),
        "num_phrases": (shape.num_phrases, len(vocabulary.phrases), "captions.json"),
    }
    for name, (of_model, expected, file) in pairs.items():
        if of_model != expected:
            raise ValueError(
                f"cloud.pt: {name} is {of_model}, and {expected} in {file}; train it again in another --run folder, "
                "or go back to what it was trained with"
            )


def require_fit(shape: TransformerConfig, manifest: Manifest, vocabulary: CaptionVocabulary) -> None:
    """Raises ValueError that names the first figure in which a cloud model, its manifest and its words differ."""
    pairs = {
        "vocab_size": (shape.vocab_size, manifest.vocab_size),
        "grid_height": (shape.grid_height, manifest.grid_height),
        "grid_width": (shape.grid_width, manifest.grid_width),
        "caption_length": (shape.caption_length, vocabulary.length),
        "num_phrases": (shape.num_phrases, len(vocabulary.phrases)),
    }
    for name, (of_model, expected) in pairs.items():
        if of_model != expected:
            raise ValueError(f"bundle: {name} is {of_model} in cloud.json and {expected} beside it; they must be equal")


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
    require_tokenizer(run.tokenizer, run.domain.tokenizer_kind, run.config)
    held_out = run.images(*SPLITS[1:])
    trainer = DecoderTrainer(
        run.tokenizer, run.images("train"), run.config.tokenizer_training, run.paths.refine_run, run.device
    )
    before = evaluate_tokenizer(trainer.tokenizer, held_out)
    trainer.state.resume()
    tokenizer = trainer.run()
    after = evaluate_tokenizer(tokenizer, held_out)
    save_tokenizer(tokenizer, run.paths.tokenizer)
    return [f"decoder: held-out PSNR {before.psnr_db:.1f} dB before, {after.psnr_db:.1f} dB after"]


def sample_prompts(run: Run) -> list[str]:
    """Prompts for a contact sheet."""
    return run.domain.sample_prompts() if run.config.bundle is None else list(run.vocabulary.examples)


def draw_samples(run: Run, prompts: list[str], out: Path, guidance: float, temperature: float, seed: int) -> list[str]:
    """A contact sheet of the cloud model's own pictures, twelve to a row."""
    torch.set_num_threads(run.config.num_threads)
    prompts = prompts or sample_prompts(run)
    condition = torch.from_numpy(np.stack([run.vocabulary.encode(prompt) for prompt in prompts]))
    choose = multinomial(torch.Generator().manual_seed(seed), temperature)
    tokens, _ = roll_out(run.writer, condition, guidance, choose)
    out.parent.mkdir(parents=True, exist_ok=True)
    image = sheet(pictures(run.tokenizer, tokens), min(12, len(prompts)))
    flat = run.tokenizer.kind == Tokenizer.kind  # few colours make a small file
    (image.quantize(128) if flat else image).save(out, optimize=True)
    return [f"{len(prompts)} pictures, guidance {guidance}, temperature {temperature}, seed {seed}: {out}"]
