"""Trains the cloud transformer on painted token sequences.

Flows in: colourless shapes with labels. Flows out: checkpoints, a curve (CSV and TensorBoard), a held-out loss.
Knows nothing of pixels or drafters. The schedule is warm-up, stable, decay to zero over a wall-clock budget, so a run
can be stopped and resumed with another budget.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from cloud_server.transformer import Transformer, TransformerConfig
from training.captions import Captioner
from training.muon import Muon
from training.palette import FOREGROUNDS, GROUNDS, NUM_PAIRS
from training.tokenizer import colour_tokens


class CloudTrainingConfig(BaseModel):
    """Optimisation of the cloud model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float = Field(default=4200, gt=0)
    """Wall-clock budget over all resumed runs."""
    decay_share: float = Field(default=0.35, gt=0, le=1)
    """The learning rate falls linearly to zero over this last share of the budget."""
    batch_size: int = Field(default=24, gt=0)
    matrix_learning_rate: float = Field(default=5e-3, gt=0)
    """Muon, for the matrices of the layers (update RMS matched to AdamW's)."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """AdamW, for embeddings, head and norms."""
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=30, ge=1)
    corrupt_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the samples with replaced input tokens."""
    corrupt_rate: float = Field(default=0.25, ge=0, le=1)
    """Largest share of replaced tokens in such a sample."""
    short_share: float = Field(default=0.92, ge=0, le=1)
    """Share of the batches without the last `short_rows` rows, which are ground and cost as much as the others."""
    short_rows: int = Field(default=2, ge=0)
    typical: float = Field(default=6.0, gt=0)
    """Drawings are preferred by their rank within the group, most typical first: weight e^(−rank/typical)."""
    checkpoint_seconds: float = Field(default=240, gt=0)
    evaluate_seconds: float = Field(default=600, gt=0)
    seed: int = 0


@dataclass(frozen=True)
class TokenData:
    """Colourless shapes with labels. shapes: int64 (N, T), −1 for ground; concept, style: int64 (N,)."""

    shapes: Tensor
    concept: np.ndarray
    style: np.ndarray

    def subset(self, rows: np.ndarray) -> TokenData:
        return TokenData(self.shapes[torch.from_numpy(rows)], self.concept[rows], self.style[rows])

    def row_weights(self, typical: float = 1e9) -> np.ndarray:
        """Sampling weights (N,): a group of n drawings is drawn ∝ √n, its drawing of rank k ∝ e^(−k/typical).

        Drawings of a group stand in order, most typical first, as curation left them.
        """
        group = self.concept * 2 + self.style
        order = np.argsort(group, kind="stable")
        counts = np.bincount(group)
        rank = np.empty(len(group))
        rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
        weights = np.exp(-rank / typical)
        weights *= np.sqrt(counts[group]) / np.bincount(group, weights)[group]
        return weights / weights.sum()

    def paint(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
        """Drawings in random colours: tokens (B, T) and labels (B, 4) = concept, style, foreground, ground."""
        pairs = rng.integers(0, NUM_PAIRS, len(rows))
        foreground, ground = np.divmod(pairs, len(GROUNDS))
        labels = np.stack([self.concept[rows], self.style[rows], foreground, ground], axis=1)
        return colour_tokens(self.shapes[torch.from_numpy(rows)], torch.from_numpy(pairs)), labels


def corrupt(tokens: Tensor, config: CloudTrainingConfig, rng: np.random.Generator) -> Tensor:
    """Replace some input tokens by tokens of other pictures and places. (B, n) → (B, n)."""
    rate = rng.random((len(tokens), 1)) * config.corrupt_rate * (rng.random((len(tokens), 1)) < config.corrupt_share)
    replaced = torch.from_numpy(rng.random(tuple(tokens.shape)) < rate)
    others = tokens.flatten()[torch.from_numpy(rng.integers(0, tokens.numel(), tuple(tokens.shape)))]
    return torch.where(replaced, others, tokens)


def initialise(model: Transformer, codes: Tensor, seed: int) -> None:
    """Start token embeddings and head from a random projection of the codebook (V', D): like codes, like rows."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    dim = model.config.dim
    shapes = codes @ draw(codes.shape[1], dim)  # (V', d), entries of unit variance
    ground = draw(1, dim) + 0.5 * (draw(len(FOREGROUNDS), 1, dim) + draw(1, len(GROUNDS), dim)).flatten(0, 1)  # (P, d)
    rows = torch.cat([ground, shapes]) + 0.3 * draw(model.config.vocab_size, dim)
    with torch.no_grad():
        model.tok_embeddings.weight.copy_(0.3 * rows)
        model.output.weight.copy_(0.01 * rows)
        model.cls_embedding.embedding_table.weight.copy_(0.2 * draw(model.config.num_phrases + 1, dim))
        model.cls_embedding.embedding_table.weight[0].zero_()
        for block in model.layers:
            block.attention.wo.weight.zero_()
            block.feed_forward.w2.weight.zero_()
        if model.feature_projection is not None:
            model.feature_projection.weight.zero_()


def make_optimizers(model: Transformer, config: CloudTrainingConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest; the feature projection stays as it is."""
    matrices = [p for p in model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for n, p in model.named_parameters() if id(p) not in chosen and not n.startswith("feature_projection")]
    return [
        Muon(matrices, lr=config.matrix_learning_rate, weight_decay=config.weight_decay),
        torch.optim.AdamW(rest, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.95)),
    ]


class CloudTrainer:
    """One resumable training run in a folder."""

    def __init__(
        self,
        shape: TransformerConfig,
        codes: Tensor,
        data: TokenData,
        held_out: dict[str, TokenData],
        captioner: Captioner,
        config: CloudTrainingConfig,
        folder: Path,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.data, self.held_out, self.captioner, self.folder = config, data, held_out, captioner, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.model = Transformer(shape)
        initialise(self.model, codes, config.seed)
        self.optimizers = make_optimizers(self.model, config)
        self.rng = np.random.default_rng(config.seed)
        self.weights = data.row_weights(config.typical)
        self.step, self.samples, self.elapsed = 0, 0, 0.0

    @property
    def checkpoint(self) -> Path:
        return self.folder / "cloud.pt"

    def _identity(self) -> dict:
        fixed = self.config.model_dump(exclude={"seconds", "decay_share", "checkpoint_seconds", "evaluate_seconds"})
        return {"shape": self.model.config.model_dump(), "training": fixed}

    def save(self) -> None:
        """Write everything that a resumed run needs, in one rename."""
        state = {
            "identity": self._identity(),
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "rng": self.rng.bit_generator.state,
            "position": {"step": self.step, "samples": self.samples, "elapsed": self.elapsed},
        }
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").replace(self.checkpoint)

    def resume(self) -> None:
        """Go on from the checkpoint. Raises ValueError if it was made with another configuration."""
        state = torch.load(self.checkpoint, weights_only=True)
        if state["identity"] != self._identity():
            differing = _differences(state["identity"], self._identity())
            raise ValueError(f"{self.checkpoint} was made with another configuration: {', '.join(differing)} differ")
        self.model.load_state_dict(state["model"])
        for optimizer, held in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        self.rng.bit_generator.state = state["rng"]
        self.step, self.samples, self.elapsed = (state["position"][k] for k in ("step", "samples", "elapsed"))

    def _schedule(self) -> float:
        progress = self.elapsed / self.config.seconds
        return min(1.0, (self.step + 1) / self.config.warmup_steps, max(0.0, (1 - progress) / self.config.decay_share))

    def train_step(self) -> float:
        """One batch; returns its loss in nats a token."""
        factor = self._schedule()
        base = (self.config.matrix_learning_rate, self.config.learning_rate)
        for optimizer, rate in zip(self.optimizers, base, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        rows = self.rng.choice(len(self.weights), self.config.batch_size, p=self.weights)
        tokens, labels = self.data.paint(rows, self.rng)
        captions = torch.from_numpy(self.captioner.draw(labels, self.rng))
        if self.rng.random() < self.config.short_share:
            tokens = tokens[:, : tokens.shape[1] - self.config.short_rows * self.model.config.grid_width]
        logits = self.model(captions, corrupt(tokens[:, :-1], self.config, self.rng))  # (B, n, V)
        loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.samples += len(rows)
        return loss.item()

    @torch.inference_mode()
    def evaluate(self, name: str, count: int = 128) -> tuple[float, float]:
        """Held-out loss (nats a token) with the right caption and with another picture's, on fixed drawings."""
        rng = np.random.default_rng(1)
        data = self.held_out[name]
        rows = rng.permutation(len(data.concept))[:count]
        tokens, labels = data.paint(rows, rng)
        other = labels.copy()
        other[:, :2] = np.roll(labels[:, :2], 1, axis=0)
        losses = []
        for chosen in (labels, other):
            captions = torch.from_numpy(self.captioner.full(chosen))
            total = 0.0
            for part, caption in zip(tokens.split(32), captions.split(32), strict=True):
                logits = self.model(caption, part[:, :-1])
                total += F.cross_entropy(logits.flatten(0, 1), part.flatten(), reduction="sum").item()
            losses.append(total / tokens.numel())
        return losses[0], losses[1]

    def run(self) -> None:
        """Train until the budget is spent, with checkpoints and held-out losses on the way."""
        curve = self.folder / "cloud.csv"
        fresh = not curve.exists()
        writer = SummaryWriter(self.folder / "events", purge_step=self.step)
        with curve.open("a", newline="") as file:
            table = csv.writer(file)
            if fresh:
                table.writerow(["step", "samples", "seconds", "name", "loss", "wrong_caption_loss"])
            try:
                self._loop(table, file, writer)
            finally:  # an interrupted run goes on from here
                writer.close()
                self.save()

    def _loop(self, table, file, writer: SummaryWriter) -> None:
        bar = tqdm(total=round(self.config.seconds), initial=round(self.elapsed), desc="cloud", unit="s", mininterval=5)
        last, next_save = time.monotonic(), self.elapsed + self.config.checkpoint_seconds
        next_evaluation, recent = self.elapsed + self.config.evaluate_seconds / 5, []
        while self.elapsed < self.config.seconds:
            recent.append(self.train_step())
            now = time.monotonic()
            self.elapsed, last = self.elapsed + now - last, now
            if self.step % 25 == 0:
                loss, recent = float(np.mean(recent)), []
                table.writerow([self.step, self.samples, round(self.elapsed), "train", f"{loss:.4f}", ""])
                writer.add_scalar("loss/train", loss, self.step)
                bar.set_postfix(step=self.step, samples=self.samples, loss=f"{loss:.3f}")
            if self.elapsed >= next_evaluation:
                for name in self.held_out:
                    right, wrong = self.evaluate(name)
                    table.writerow([self.step, self.samples, round(self.elapsed), name, f"{right:.4f}", f"{wrong:.4f}"])
                    writer.add_scalar(f"loss/{name}", right, self.step)
                next_evaluation = self.elapsed + self.config.evaluate_seconds
            if self.elapsed >= next_save:
                self.save()
                next_save = self.elapsed + self.config.checkpoint_seconds
            file.flush()
            bar.update(round(self.elapsed) - bar.n)
        bar.close()


def _differences(a: dict, b: dict) -> list[str]:
    """Names of the leaves in which two nested dictionaries differ."""
    found = []
    for key in sorted(a.keys() | b.keys()):
        x, y = a.get(key), b.get(key)
        if isinstance(x, dict) and isinstance(y, dict):
            found += [f"{key}.{name}" for name in _differences(x, y)]
        elif x != y:
            found.append(key)
    return found


def load_cloud(path: Path) -> Transformer:
    """The model of a checkpoint. Raises FileNotFoundError that names the command to run."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run the `cloud` command first")
    state = torch.load(path, weights_only=True)
    model = Transformer(TransformerConfig(**state["identity"]["shape"]))
    model.load_state_dict(state["model"])
    return model.eval()
