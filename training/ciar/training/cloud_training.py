"""Trains the cloud transformer on token sequences with captions.

Flows in: a `TokenSource`. Flows out: checkpoints, a curve (CSV and TensorBoard), a held-out loss. Knows nothing of
pixels or drafters. The schedule is warm-up, stable, decay to zero over the budget, so a run can be stopped and resumed
with another budget.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ciar.cloud_server.transformer import Transformer, TransformerConfig, fused_causal_attention
from ciar.training.muon import Muon
from ciar.training.run_state import Budget, NumpyState, Precision, Several, TrainingRun, precision
from ciar.training.token_data import TokenSource


class CloudTrainingConfig(Budget):
    """Optimisation of the cloud model."""

    seconds: float | None = Field(default=4200, gt=0)
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
    short_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the batches without the last `short_rows` rows; those of icons are ground and cost as much as others."""
    short_rows: int = Field(default=2, ge=0)
    typical: float = Field(default=6.0, gt=0)
    """Icons: drawings are preferred by their rank within the group, most typical first: weight e^(−rank/typical)."""
    precision: Precision = "float32"
    checkpoint_seconds: float = Field(default=240, gt=0)
    evaluate_seconds: float = Field(default=600, gt=0)
    seed: int = 0


def corrupt(tokens: Tensor, config: CloudTrainingConfig, rng: np.random.Generator) -> Tensor:
    """Replace some input tokens by tokens of other pictures and places. (B, n) → (B, n)."""
    rate = rng.random((len(tokens), 1)) * config.corrupt_rate * (rng.random((len(tokens), 1)) < config.corrupt_share)
    replaced = torch.from_numpy(rng.random(tuple(tokens.shape)) < rate)
    others = tokens.flatten()[torch.from_numpy(rng.integers(0, tokens.numel(), tuple(tokens.shape)))]
    return torch.where(replaced, others, tokens)


def initialise(model: Transformer, token_rows: Tensor, seed: int) -> None:
    """Start token embeddings and head from rows (V, d) of unit variance that are alike where the tokens are."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    dim = model.config.dim
    rows = token_rows + 0.3 * draw(model.config.vocab_size, dim)
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
        Muon(
            matrices,
            lr=config.matrix_learning_rate,
            weight_decay=config.weight_decay,
            dtype=getattr(torch, config.precision),
        ),
        torch.optim.AdamW(rest, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.95)),
    ]


def plain_causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention written out, (B, H, S, Dh): on a CPU in bfloat16 half again as fast as the fused one."""
    batch, length = q.shape[0], q.shape[2]
    mask = torch.full((length, length), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    q, k, v = (z.flatten(0, 1) for z in (q * q.shape[-1] ** -0.5, k, v))  # (B·H, S, Dh)
    return (torch.baddbmm(mask, q, k.mT).softmax(-1).to(v.dtype) @ v).unflatten(0, (batch, -1))


class CloudTrainer:
    """One resumable training run in a folder."""

    def __init__(
        self,
        shape: TransformerConfig,
        token_rows: Tensor,
        data: TokenSource,
        held_out: Mapping[str, TokenSource],
        config: CloudTrainingConfig,
        folder: Path,
        device: torch.device,
    ) -> None:
        """token_rows: (V, d), what `initialise` starts from."""
        torch.manual_seed(config.seed)
        self.config, self.data, self.held_out, self.device = config, data, held_out, device
        self.model = Transformer(shape)
        initialise(self.model, token_rows, config.seed)
        self.model.to(device)
        self.optimizers = make_optimizers(self.model, config)
        self.rng = np.random.default_rng(config.seed)
        self._attention = plain_causal_attention if device.type == "cpu" else fused_causal_attention
        identity = {
            "shape": shape.model_dump(),
            "training": config.fixed("decay_share", "checkpoint_seconds", "evaluate_seconds"),
            "num_sequences": len(data),
            "tokenizer_checksum": zlib.crc32(token_rows.numpy().tobytes()),
        }
        parts = {"model": self.model, "optimizers": Several(self.optimizers), "rng": NumpyState(self.rng)}
        self.state = TrainingRun(folder, "cloud", config, identity, parts, config.checkpoint_seconds)

    def run(self, until: float = 1.0) -> None:
        """Train until that share of the budget is spent, with checkpoints and held-out losses on the way."""
        self.state.run(
            self.train_step, until=until, evaluate=self.figures, evaluate_seconds=self.config.evaluate_seconds
        )

    def _schedule(self) -> float:
        left = 1 - self.state.progress
        return min(1.0, (self.state.step + 1) / self.config.warmup_steps, left / self.config.decay_share)

    def train_step(self) -> Mapping[str, float]:
        """One batch; returns its loss in nats a token."""
        factor = self._schedule()
        base = (self.config.matrix_learning_rate, self.config.learning_rate)
        for optimizer, rate in zip(self.optimizers, base, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        tokens, captions = self.data.batch(self.config.batch_size, self.rng)
        if self.rng.random() < self.config.short_share:
            tokens = tokens[:, : tokens.shape[1] - self.config.short_rows * self.model.config.grid_width]
        inputs = corrupt(tokens[:, :-1], self.config, self.rng)
        logits = self._logits(captions.to(self.device), inputs.to(self.device))  # (B, n, V)
        loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten().to(self.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return {"loss/train": loss.item()}

    def _logits(self, captions: Tensor, inputs: Tensor) -> Tensor:
        """float32 (B, n, V) in the configured precision."""
        if self.config.precision == "float32":
            return self.model(captions, inputs)
        with precision(self.config.precision, self.device):
            return self.model(captions, inputs, attention=self._attention)

    @torch.inference_mode()
    def evaluate(self, name: str, count: int = 128) -> tuple[float, float]:
        """Held-out loss (nats a token) with the right caption and with another picture's, on fixed sequences."""
        examples = self.held_out[name].examples(count, np.random.default_rng(1))
        return self._loss(examples.tokens, examples.captions), self._loss(examples.tokens, examples.other_captions)

    def _loss(self, tokens: Tensor, captions: Tensor) -> float:
        total = 0.0
        for part, caption in zip(tokens.split(32), captions.split(32), strict=True):
            part = part.to(self.device)
            logits = self._logits(caption.to(self.device), part[:, :-1])
            total += F.cross_entropy(logits.flatten(0, 1), part.flatten(), reduction="sum").item()
        return total / tokens.numel()

    def figures(self) -> Mapping[str, float]:
        """The held-out losses of every split, by name."""
        found = {}
        for name in self.held_out:
            found[f"loss/{name}"], found[f"wrong_caption_loss/{name}"] = self.evaluate(name)
        return found


def load_cloud(path: Path) -> Transformer:
    """The model of a checkpoint. Raises FileNotFoundError that names the command to run."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run the `cloud` command first")
    state = torch.load(path, weights_only=True, map_location="cpu")
    model = Transformer(TransformerConfig(**state["identity"]["shape"]))
    model.load_state_dict(state["model"])
    return model.eval()
