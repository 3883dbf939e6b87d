"""What the drafter learns from: sequences with the cloud's guided law at every position, kept on disk in shards.

Flows in: a cloud model, a vocabulary, for mixed sequences a drafter. Flows out: shards in a folder, and a `LawCache` of
them. A shard is a function of (seed, its number), so a stopped run goes on where it stopped and ends with the same
files. Knows nothing of losses. No drawing is needed: whatever cloud model the server can load, writes its own data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from tqdm import tqdm

from ciar.cloud_server.transformer import Transformer
from ciar.shared.conditioning import CaptionVocabulary
from ciar.training.dataset import held_out_combination
from ciar.training.drafter import Drafter, DrafterStepper
from ciar.training.sampling import Choose, gumbel, roll_out


class LawsConfig(BaseModel):
    """How much is written, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_written: int = Field(default=6144, ge=1)
    """Sequences by the cloud alone."""
    num_mixed: int = Field(default=2048, ge=0)
    """Sequences by cloud and drafter as a gate at `local_share` would share the work."""
    num_held_out: int = Field(default=256, ge=1)
    """Mixed sequences of held-out combinations, for the figures."""
    local_share: float = Field(default=0.8, ge=0, le=1)
    temperatures: tuple[float, ...] = Field(default=(0.75, 0.75, 1.0), min_length=1)
    """Shards are written at these in turn."""
    drop_word: float = Field(default=0.06, ge=0, lt=1)
    """Chance that a word of the prompt, other than the thing itself, is left out."""
    prompts: Path | None = None
    """A file of prompts, one a line; by default they are drawn from the kinds of words in the vocabulary."""
    held_out_prompts: Path | None = None
    """A file of prompts for what figures are measured on; by default as `prompts`."""
    shard_size: int = Field(default=256, ge=1)
    batch_size: int = Field(default=64, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class LawCache:
    """Sequences and the guided law they were continued with."""

    condition: Tensor  # int64 (N, C)
    tokens: Tensor  # int64 (N, T)
    law: Tensor  # float16 (N, T, V) log-probabilities at temperature 1

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: Tensor | slice) -> tuple[Tensor, Tensor, Tensor]:
        """Condition, tokens and float32 log-probabilities of some rows."""
        return self.condition[rows], self.tokens[rows], self.law[rows].float()

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for rows in torch.arange(len(self)).split(size):
            yield self.batch(rows)

    def subset(self, rows: Tensor) -> LawCache:
        """Some rows, as a cache of their own."""
        return LawCache(*(part[rows] for part in self.parts))

    @classmethod
    def join(cls, parts: Sequence[LawCache]) -> LawCache:
        """All rows of all parts."""
        return cls(*(torch.cat(list(tensors)) for tensors in zip(*(p.parts for p in parts), strict=True)))

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.condition, self.tokens, self.law


class Prompter:
    """Draws prompts: one word of every kind, some left out, or lines of a file; held-out combinations apart."""

    def __init__(self, vocabulary: CaptionVocabulary, config: LawsConfig, *, held_out: bool = False) -> None:
        """held_out: only complete held-out combinations, else none of them.

        Raises ValueError for a file of prompts that is empty or holds a line that the vocabulary cannot read.
        """
        self._vocabulary, self._config, self._held_out = vocabulary, config, held_out
        self._lines: list[str] = []
        path = config.held_out_prompts if held_out and config.held_out_prompts is not None else config.prompts
        if path is not None:
            self._lines = [s for line in path.read_text(encoding="utf-8").splitlines() if (s := line.strip())]
            if not self._lines:
                raise ValueError(f"laws.prompts: {path} holds no prompt")
            for line in self._lines:
                vocabulary.encode(line)

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """Phrase ids of `count` prompts: int64 (count, C)."""
        return torch.from_numpy(np.stack([self._vocabulary.encode(self.prompt(rng)) for _ in range(count)]))

    def prompt(self, rng: np.random.Generator) -> str:
        """One prompt."""
        if self._lines:
            return self._lines[rng.integers(len(self._lines))]
        thing, *rest = (list(words) for words in self._vocabulary.kinds.values())
        while True:
            words = [kind[rng.integers(len(kind))] for kind in (thing, *rest)]
            if self._held_out == held_out_combination(words):
                dropped = rng.random(len(rest)) < (0.0 if self._held_out else self._config.drop_word)
                return " ".join([words[0], *(w for w, gone in zip(words[1:], dropped, strict=True) if not gone)])


def by_both(
    drafter: Drafter, condition: Tensor, threshold: float, temperature: float, generator: torch.Generator
) -> Choose:
    """The drafter's draw where its likeliest token has that probability, else the cloud's; noise in common.

    What a gated picture would become, by a gate that needs no trained radius.
    """
    stepper = DrafterStepper(drafter, condition)
    known = torch.zeros(len(condition), drafter.pair.num_tokens, dtype=torch.int64)

    def choose(t: int, log_probs: Tensor) -> Tensor:
        draft = stepper.step(t, known)
        drafted = torch.log_softmax(draft.center[:, 0], dim=-1)  # (B, V)
        local = drafted.max(-1).values.exp() >= threshold  # (B,)
        noise = gumbel(log_probs.shape, generator)
        chosen = torch.where(local[:, None], drafted, log_probs)
        known[:, t] = (chosen / temperature + noise).argmax(-1)
        return known[:, t]

    return choose


def write_shards(
    folder: Path,
    kind: str,
    count: int,
    model: Transformer,
    guidance: float,
    prompter: Prompter,
    config: LawsConfig,
    make_choose: Callable[[Tensor, float, torch.Generator], Choose],
) -> LawCache:
    """The first `count` sequences of a kind: those on disk, and the rest written now.

    make_choose: (condition (B, C), temperature, generator) -> who draws the tokens. Raises ValueError for a shard of
    another shape than the model's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    sizes = [min(config.shard_size, count - start) for start in range(0, count, config.shard_size)]
    for number, size in enumerate(tqdm(sizes, desc=f"laws, {kind}", unit="shard")):
        path = folder / f"{kind}-{number:03d}.pt"
        if not path.is_file():
            shard = _write_shard(number, size, model, guidance, prompter, config, make_choose)
            torch.save(dict(zip(("condition", "tokens", "law"), shard.parts, strict=True)), path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
        shards.append(_read_shard(path, model, size))
    return LawCache.join(shards)


def _write_shard(
    number: int,
    size: int,
    model: Transformer,
    guidance: float,
    prompter: Prompter,
    config: LawsConfig,
    make_choose: Callable[[Tensor, float, torch.Generator], Choose],
) -> LawCache:
    rng = np.random.default_rng([config.seed, number])
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
    temperature = config.temperatures[number % len(config.temperatures)]
    parts = []
    for condition in prompter.draw(size, rng).split(config.batch_size):
        choose = make_choose(condition, temperature, generator)
        tokens, law = roll_out(model, condition, guidance, choose, keep_law=True)
        assert law is not None
        parts.append(LawCache(condition, tokens, law))
    return LawCache.join(parts)


def _read_shard(path: Path, model: Transformer, size: int) -> LawCache:
    held = torch.load(path, weights_only=True, mmap=True)
    shard = LawCache(held["condition"], held["tokens"], held["law"])
    shape = model.config
    expected = (size, shape.num_tokens, shape.vocab_size)
    if tuple(shard.law.shape) != expected:
        raise ValueError(
            f"{path} holds laws of shape {tuple(shard.law.shape)}, this run needs {expected}: it was written with "
            "another configuration; remove the folder, or name another run"
        )
    return shard
