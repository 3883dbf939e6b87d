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

PARTS = ("condition", "tokens", "law", "index")
"""Names of a shard's tensors; the last is not always there."""


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
    keep: int | None = Field(default=None, ge=1)
    """How many of the likeliest tokens of a position keep their probability, the others sharing evenly what is left; by
    default all. A sequence of T tokens takes 2·T·V bytes, and 6·T·keep with this."""
    shard_size: int = Field(default=256, ge=1)
    batch_size: int = Field(default=64, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class LawCache:
    """Sequences and the guided law they were continued with."""

    condition: Tensor  # int64 (N, C)
    tokens: Tensor  # int64 (N, T)
    law: Tensor  # float16 (N, T, V) log-probabilities at temperature 1; (N, T, K) of the likeliest if there is an index
    index: Tensor | None = None  # int32 (N, T, K), whose they are
    vocab_size: int | None = None
    """Number V of tokens, if there is an index."""

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: Tensor | slice) -> tuple[Tensor, Tensor, Tensor]:
        """Condition, tokens and float32 log-probabilities of some rows."""
        law = self.law[rows].float()
        if self.index is not None:
            assert self.vocab_size is not None
            law = spread(law, self.index[rows], self.vocab_size)
        return self.condition[rows], self.tokens[rows], law

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for rows in torch.arange(len(self)).split(size):
            yield self.batch(rows)

    def subset(self, rows: Tensor) -> LawCache:
        """Some rows, as a cache of their own."""
        return LawCache(*(part[rows] for part in self.parts), vocab_size=self.vocab_size)

    def shortened(self, keep: int | None) -> LawCache:
        """The same with only that many of the likeliest tokens of every position, or as it is."""
        if keep is None or self.index is not None or keep >= self.law.shape[-1]:
            return self
        kept = self.law.topk(keep, dim=-1)
        return LawCache(self.condition, self.tokens, kept.values, kept.indices.int(), self.law.shape[-1])

    @classmethod
    def join(cls, parts: Sequence[LawCache]) -> LawCache:
        """All rows of all parts."""
        tensors = zip(*(p.parts for p in parts), strict=True)
        return cls(*(torch.cat(list(part)) for part in tensors), vocab_size=parts[0].vocab_size)

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """Its tensors, row by row: condition, tokens, law, and the index if there is one."""
        return tuple(part for part in (self.condition, self.tokens, self.law, self.index) if part is not None)


def spread(law: Tensor, index: Tensor, vocab_size: int) -> Tensor:
    """Log-probabilities (…, V) of the likeliest tokens' (…, K) and their ids: the others share evenly what is left."""
    left = (1 - law.exp().sum(-1, keepdim=True)).clamp(min=1e-6) / (vocab_size - law.shape[-1])  # (…, 1)
    dense = left.log().expand(*law.shape[:-1], vocab_size).clone()
    return dense.scatter_(-1, index.long(), law)


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
            torch.save(dict(zip(PARTS, shard.parts, strict=False)), path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
        shards.append(_read_shard(path, model, size, config.keep))
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
        parts.append(LawCache(condition, tokens, law).shortened(config.keep))
    return LawCache.join(parts)


def _read_shard(path: Path, model: Transformer, size: int, keep: int | None) -> LawCache:
    held = torch.load(path, weights_only=True, mmap=True)
    shape = model.config
    shard = LawCache(*(held[name] for name in PARTS if name in held), vocab_size=shape.vocab_size)
    expected = (size, shape.num_tokens, min(keep or shape.vocab_size, shape.vocab_size))
    if tuple(shard.law.shape) != expected:
        raise ValueError(
            f"{path} holds laws of shape {tuple(shard.law.shape)}, this run needs {expected}: it was written with "
            "another configuration; remove the folder, or name another run"
        )
    return shard
