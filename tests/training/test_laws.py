"""Sequences with their laws: who draws, what is never asked for, and shards that do not depend on interruptions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ciar.cloud_server.transformer import Transformer, TransformerConfig
from ciar.shared.conditioning import CaptionVocabulary
from ciar.training.dataset import held_out_combination
from ciar.training.drafter import Drafter, DrafterConfig, PairShape
from ciar.training.laws import LawCache, LawsConfig, Prompter, by_both, write_shards
from ciar.training.sampling import multinomial

KINDS = {
    "concept": tuple(f"thing{i}" for i in range(12)),
    "style": ("filled", "outline"),
    "colour": ("red", "blue", "green"),
    "ground": ("on cream", "on white"),
}
VOCABULARY = CaptionVocabulary(length=4, phrases=sum(KINDS.values(), ()), kinds=KINDS)
SHAPE = TransformerConfig(
    dim=16, num_layers=1, num_heads=2, ffn_dim=16, vocab_size=24, grid_height=4, grid_width=4,
    num_phrases=len(VOCABULARY.phrases), caption_length=4, prefix_rope="identity", condition_everywhere=True,
    feature_dim=2,
)  # fmt: skip
PAIR = PairShape(vocab_size=24, grid=4, num_phrases=SHAPE.num_phrases, caption_length=4, feature_dim=2)


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(SHAPE).eval()
    with torch.no_grad():
        model.output.weight.normal_(std=1.0)
    return model


@pytest.fixture
def drafter() -> Drafter:
    torch.manual_seed(1)
    return Drafter(DrafterConfig(dim=16, num_heads=1, ffn_dim=16), PAIR).eval()


def _write(folder: Path, model: Transformer, count: int, config: LawsConfig, kind: str = "written") -> LawCache:
    prompter = Prompter(VOCABULARY, config)
    return write_shards(folder, kind, count, model, 1.5, prompter, config, lambda _c, t, g: multinomial(g, t))


def test_a_run_that_was_interrupted_writes_the_same_shards(model: Transformer, tmp_path: Path) -> None:
    config = LawsConfig(shard_size=4, batch_size=2)
    whole = _write(tmp_path / "whole", model, 10, config)
    _write(tmp_path / "parts", model, 8, config)
    (tmp_path / "parts" / "written-001.pt").unlink()
    assert len(whole) == 10
    for a, b in zip(whole.parts, _write(tmp_path / "parts", model, 10, config).parts, strict=True):
        assert torch.equal(a, b)


def test_the_law_is_the_guided_one_of_the_sequence(model: Transformer, tmp_path: Path) -> None:
    cache = _write(tmp_path, model, 3, LawsConfig(shard_size=4))
    condition, tokens, law = cache.parts
    with torch.inference_mode():
        logits = model(torch.cat([condition, torch.zeros_like(condition)]), tokens[:, :-1].repeat(2, 1))
    with_caption, without = logits.chunk(2)
    expected = torch.log_softmax(without + 1.5 * (with_caption - without), -1).clamp(min=-30)
    torch.testing.assert_close(law.float(), expected, atol=2e-2, rtol=2e-2)


def test_a_shard_of_another_model_is_an_error_that_names_it(model: Transformer, tmp_path: Path) -> None:
    config = LawsConfig(shard_size=4)
    _write(tmp_path, model, 4, config)
    other = Transformer(SHAPE.model_copy(update={"vocab_size": 25}))
    with pytest.raises(ValueError, match=r"written-000\.pt holds laws .* 24\), this run needs .* 25\)"):
        _write(tmp_path, other, 4, config)


def test_prompts_never_are_held_out_combinations_and_held_out_ones_always() -> None:
    rng = np.random.default_rng(0)
    kept, apart = (Prompter(VOCABULARY, LawsConfig(drop_word=0.0), held_out=h) for h in (False, True))
    for prompter, expected in ((kept, False), (apart, True)):
        for _ in range(60):
            words = _words(prompter.prompt(rng))
            assert len(words) == 4
            assert held_out_combination(words) is expected


def test_words_are_left_out_but_the_thing_never() -> None:
    rng = np.random.default_rng(0)
    prompter = Prompter(VOCABULARY, LawsConfig(drop_word=0.5))
    prompts = [_words(prompter.prompt(rng)) for _ in range(60)]
    assert {len(words) for words in prompts} == {1, 2, 3, 4}
    assert all(words[0] in KINDS["concept"] for words in prompts)


def test_the_held_out_share_is_about_one_in_twenty() -> None:
    combinations = [(f"thing{i}", style, colour) for i in range(400) for style in "ab" for colour in "cdefg"]
    share = np.mean([held_out_combination(words) for words in combinations])
    assert 0.03 < share < 0.07  # 4000 draws of 0.05 have a standard deviation of 0.0034


def test_prompts_of_a_file(tmp_path: Path) -> None:
    lines = tmp_path / "prompts.txt"
    lines.write_text("red filled thing3 on cream\n\nblue thing4\n", encoding="utf-8")
    rng = np.random.default_rng(0)
    prompter = Prompter(VOCABULARY, LawsConfig(prompts=lines))
    assert {prompter.prompt(rng) for _ in range(40)} == {"red filled thing3 on cream", "blue thing4"}
    lines.write_text("red unicorn\n", encoding="utf-8")
    with pytest.raises(ValueError, match="unicorn"):
        Prompter(VOCABULARY, LawsConfig(prompts=lines))
    lines.write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"laws\.prompts: .* holds no prompt"):
        Prompter(VOCABULARY, LawsConfig(prompts=lines))


@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_a_gate_that_is_open_or_closed_leaves_all_to_one_side(
    threshold: float, model: Transformer, drafter: Drafter, tmp_path: Path
) -> None:
    config = LawsConfig(shard_size=4, temperatures=(1.0,))
    prompter = Prompter(VOCABULARY, config)
    cache = write_shards(
        tmp_path, "mixed", 4, model, 1.5, prompter, config, lambda c, t, g: by_both(drafter, c, threshold, t, g)
    )
    alone = _write(tmp_path, model, 4, config)
    with torch.inference_mode():
        center = drafter(cache.condition, cache.tokens).center
    generator = torch.Generator().manual_seed(0)
    noise = -torch.log(-torch.log(torch.stack([torch.rand(4, 24, generator=generator) for _ in range(16)], 1)))
    drafted = (torch.log_softmax(center, -1) + noise).argmax(-1)
    assert torch.equal(cache.tokens, alone.tokens) is (threshold == 2.0)
    assert torch.equal(cache.tokens, drafted) is (threshold == 0.0)


def _words(prompt: str) -> list[str]:
    words = prompt.replace("on ", "on_").split()
    return [word.replace("_", " ") for word in words]


def test_the_likeliest_tokens_keep_their_probability_and_the_rest_share(model: Transformer, tmp_path: Path) -> None:
    whole = _write(tmp_path / "whole", model, 6, LawsConfig(shard_size=4))
    short = _write(tmp_path / "short", model, 6, LawsConfig(shard_size=4, keep=5))
    assert short.law.shape == (6, 16, 5)
    for part in (slice(0, 6), torch.tensor([1, 4])):
        (_, tokens, law), (_, same, kept) = whole.batch(part), short.batch(part)
        assert torch.equal(tokens, same)
        assert torch.allclose(kept.exp().sum(-1), torch.ones(kept.shape[:2]), atol=5e-3)
        top = law.topk(5).indices
        assert torch.equal(kept.gather(-1, top), law.gather(-1, top))
        rest = kept.scatter(-1, top, torch.inf).sort(-1).values[..., :-5]
        assert (rest.amax(-1) - rest.amin(-1)).max() == 0
    assert torch.equal(short.subset(torch.tensor([5])).batch(slice(0, 1))[2], short.batch(slice(5, 6))[2])
    with pytest.raises(ValueError, match="another configuration"):
        _write(tmp_path / "short", model, 6, LawsConfig(shard_size=4))
