"""The cloud model's loss on pictures that it was not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ciar.benchmarks.evaluation.cli import CONFIG
from ciar.benchmarks.evaluation.heldout import held_out_losses, held_out_sources
from ciar.shared.errors import InvalidRequest
from ciar.training.token_data import Examples
from tests.support.tiny_bundle import CONFIG as SHAPE
from tests.support.tiny_bundle import make_transformer


class Source:
    """Sequences with their captions."""

    def __init__(self, tokens: torch.Tensor, captions: torch.Tensor, others: torch.Tensor) -> None:
        self._examples = Examples(tokens, captions, others)

    def examples(self, count: int, rng: np.random.Generator) -> Examples:
        held = self._examples
        return Examples(held.tokens[:count], held.captions[:count], held.other_captions[:count])


def test_the_loss_is_the_mean_surprise_and_lower_with_the_caption_that_wrote_the_tokens() -> None:
    model = make_transformer()
    captions = torch.tensor([[1, 5, 7, 9], [2, 6, 8, 10]]).repeat(20, 1)  # (40, C)
    tokens = torch.zeros(40, SHAPE.num_tokens, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for t in range(SHAPE.num_tokens):
            law = model(captions, tokens[:, : SHAPE.num_tokens - 1])[:, t].softmax(-1)
            tokens[:, t] = torch.multinomial(law, 1, generator=generator)[:, 0]
        log_p = model(captions[:1], tokens[:1, :-1]).log_softmax(-1)
    source = Source(tokens, captions, captions.roll(1, 0))
    (found,) = held_out_losses(model, {"all": source}).values()  # type: ignore[dict-item]
    assert found.num_pictures == 40
    assert found.right < found.wrong - 0.1
    (first,) = held_out_losses(model, {"one": source}, count=1).values()  # type: ignore[dict-item]
    expected = -log_p[0, torch.arange(SHAPE.num_tokens), tokens[0]].mean()
    assert first.right == pytest.approx(expected.item(), rel=1e-4)


def test_another_grid_is_named() -> None:
    source = Source(torch.zeros(2, 9, dtype=torch.int64), torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(InvalidRequest, match="9 tokens and captions of 4, the bundle's 36 and 4"):
        held_out_losses(make_transformer(), {"all": source})  # type: ignore[dict-item]


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"^run: "):
        held_out_sources(tmp_path, CONFIG)
