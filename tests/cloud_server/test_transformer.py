"""The cloud model against LlamaGen: its sizes, its names, and an independent slow implementation of its arithmetic."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from ciar.cloud_server.transformer import RMSNorm, Transformer, TransformerConfig, llamagen_config, rope_table
from tests.support.tiny_bundle import CONFIG, make_transformer

LLAMAGEN = CONFIG.model_copy(
    update={
        "conditioning": "class",
        "num_phrases": 10,
        "caption_length": 1,
        "prefix_rope": "zeros",
        "condition_everywhere": False,
        "feature_dim": 0,
    }
)
"""LlamaGen's structure at the size of a test."""


# ---- sizes and names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "num_parameters", "ffn_dim"),
    [
        ("B", 110_888_448, 2048),
        ("L", 342_910_976, 2816),
        ("XL", 774_699_520, 3584),
        ("XXL", None, 4096),
        ("3B", None, 8704),
    ],
)
def test_llamagen_sizes(size: Literal["B", "L", "XL", "XXL", "3B"], num_parameters: int | None, ffn_dim: int) -> None:
    config = llamagen_config(size)
    assert config.ffn_dim == ffn_dim
    with torch.device("meta"):
        model = Transformer(config)
    counted = sum(parameter.numel() for parameter in model.parameters())
    if num_parameters is None:
        billions = {"XXL": 1411.0e6, "3B": 3096.7e6}[size]  # published to 0.1 million
        assert counted == pytest.approx(billions, abs=0.06e6)
    else:
        assert counted == num_parameters


def test_state_dict_has_llamagens_names() -> None:
    with torch.device("meta"):
        names = set(Transformer(llamagen_config("B")).state_dict())
    expected = {"cls_embedding.embedding_table.weight", "tok_embeddings.weight", "norm.weight", "output.weight"}
    for layer in range(12):
        for part in (
            "attention.wqkv",
            "attention.wo",
            "feed_forward.w1",
            "feed_forward.w3",
            "feed_forward.w2",
            "attention_norm",
            "ffn_norm",
        ):
            expected.add(f"layers.{layer}.{part}.weight")
    assert names == expected


def test_our_own_additions_have_their_own_names() -> None:
    ours, plain = Transformer(CONFIG).state_dict(), Transformer(CONFIG.model_copy(update={"feature_dim": 0}))
    assert ours.keys() - plain.state_dict().keys() == {"feature_projection.weight"}
    assert ours["feature_projection.weight"].shape == (CONFIG.dim, CONFIG.feature_dim)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_heads": 5}, "multiple of 4"),
        ({"num_heads": 16}, "multiple of 4"),
        ({"conditioning": "class"}, "caption_length 1"),
        ({"vocab_size": 1}, "vocab_size"),
        ({"layers": 3}, "layers"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        TransformerConfig.model_validate(CONFIG.model_dump() | change)


# ---- arithmetic ----------------------------------------------------------------------------------------------------


def slow_rotate(x: NDArray[np.float64], position: int, config: TransformerConfig) -> NDArray[np.float64]:
    """One head's vector (Dh,) at a sequence position, rotated pair by pair as LlamaGen does."""
    token = position - config.caption_length
    if token < 0:
        return np.zeros_like(x) if config.prefix_rope == "zeros" else x
    row, column = divmod(token, config.grid_width)
    num_pairs = x.size // 2
    rotated = np.empty_like(x)
    for pair in range(num_pairs):
        along, number = (row, pair) if pair < num_pairs // 2 else (column, pair - num_pairs // 2)
        angle = along * config.rope_base ** (-2 * number / num_pairs)
        a, b = x[2 * pair], x[2 * pair + 1]
        rotated[2 * pair] = a * math.cos(angle) - b * math.sin(angle)
        rotated[2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
    return rotated


def slow_norm(x: NDArray[np.float64], weight: NDArray[np.float64], eps: float) -> NDArray[np.float64]:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def slow_logits(model: Transformer, condition: list[int], tokens: list[int]) -> NDArray[np.float64]:
    """Logits (n + 1, V), one position and one head at a time."""
    config = model.config
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    prefix = w["cls_embedding.embedding_table.weight"][condition]  # (C, d)
    rows = w["tok_embeddings.weight"][tokens]  # (n, d)
    if config.condition_everywhere:
        rows = rows + prefix.sum(0)
    x = np.concatenate([prefix, rows])  # (S, d)
    for layer in range(config.num_layers):
        p = f"layers.{layer}."
        h = slow_norm(x, w[p + "attention_norm.weight"], config.norm_eps)
        q, k, v = (h @ part.T for part in np.split(w[p + "attention.wqkv.weight"], 3))  # (S, d) each
        mixed = np.zeros_like(x)
        for head in range(config.num_heads):
            part = slice(head * config.head_dim, (head + 1) * config.head_dim)
            for i in range(len(x)):
                query = slow_rotate(q[i, part], i, config)
                scores = np.array([query @ slow_rotate(k[j, part], j, config) for j in range(i + 1)])
                weights = np.exp(scores / math.sqrt(config.head_dim))
                mixed[i, part] = (weights / weights.sum()) @ v[: i + 1, part]
        x = x + mixed @ w[p + "attention.wo.weight"].T
        h = slow_norm(x, w[p + "ffn_norm.weight"], config.norm_eps)
        gate = h @ w[p + "feed_forward.w1.weight"].T
        gate = gate / (1 + np.exp(-gate)) * (h @ w[p + "feed_forward.w3.weight"].T)
        x = x + gate @ w[p + "feed_forward.w2.weight"].T
    x = slow_norm(x, w["norm.weight"], config.norm_eps)
    return x[config.caption_length - 1 :] @ w["output.weight"].T


@pytest.mark.parametrize(
    ("config", "condition"),
    [(LLAMAGEN, [3]), (CONFIG, [1, 7, 0, 0]), (CONFIG.model_copy(update={"prefix_rope": "zeros"}), [2, 4, 6, 0])],
    ids=["LlamaGen", "ours", "ours with zeros"],
)
def test_forward_equals_a_slow_implementation(config: TransformerConfig, condition: list[int]) -> None:
    model = make_transformer(config, seed=3)
    for norm in (module for module in model.modules() if isinstance(module, RMSNorm)):
        norm.weight.uniform_(0.5, 1.5)  # so that a forgotten weight shows
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 15).tolist()
    logits = model(torch.tensor([condition]), torch.tensor([tokens]))
    assert logits.shape == (1, 16, config.vocab_size)
    np.testing.assert_allclose(logits[0].numpy(), slow_logits(model, condition, tokens), atol=2e-4)


def test_rope_table_row_by_row() -> None:
    config = CONFIG.model_copy(update={"grid_height": 3, "grid_width": 5})
    table = rope_table(config)
    assert table.shape == (config.caption_length + 15, config.head_dim // 2)
    x = np.random.default_rng(0).normal(size=config.head_dim)
    for position in range(len(table)):
        turned = torch.view_as_real(torch.view_as_complex(torch.tensor(x).view(-1, 2)) * table[position]).flatten()
        np.testing.assert_allclose(turned.numpy(), slow_rotate(x, position, config), atol=1e-5)


def test_picture_token_0_is_not_rotated_and_the_prefix_is_erased() -> None:
    table = rope_table(llamagen_config("B"))
    assert table.shape == (257, 32)
    assert torch.equal(table[0], torch.zeros(32, dtype=torch.complex64))
    assert torch.equal(table[1], torch.ones(32, dtype=torch.complex64))
    assert not torch.equal(table[2], table[1])
    assert torch.equal(table[2, :16], table[1, :16])  # one step right: only the column's half turns
    assert torch.equal(table[17, 16:], table[1, 16:])  # one row down: only the row's half turns


def test_identity_leaves_the_prefix_as_it_is() -> None:
    table = rope_table(CONFIG)
    assert torch.equal(table[:5], torch.ones(5, CONFIG.head_dim // 2, dtype=torch.complex64))


def test_rms_norm_casts_back_before_the_weight() -> None:
    norm = RMSNorm(64, eps=1e-5).to(torch.bfloat16)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
        normed = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5)
        assert torch.equal(norm(x), normed.type_as(x) * norm.weight)
        assert not torch.equal(norm(x), (normed * norm.weight.float()).type_as(x))


def test_a_token_sees_only_what_is_before_it() -> None:
    model = make_transformer()
    condition, tokens = torch.tensor([[1, 2, 0, 0]]), torch.arange(20)[None]
    changed = tokens.clone()
    changed[0, 12] = 50
    before, after = model(condition, tokens)[0], model(condition, changed)[0]
    assert torch.equal(before[:13], after[:13])
    assert (before[13:] != after[13:]).any(-1).all()


def test_features_change_the_laws_only_after_their_token() -> None:
    model = make_transformer()
    condition, tokens = torch.tensor([[1, 2, 0, 0]]), torch.arange(20)[None]
    features = torch.zeros(1, 20, CONFIG.feature_dim)
    plain, zero = model(condition, tokens), model(condition, tokens, features)
    torch.testing.assert_close(plain, zero)
    features[0, 7] = 1.0
    with_feature = model(condition, tokens, features)
    assert torch.equal(with_feature[0, :8], zero[0, :8])
    assert (with_feature[0, 8:] != zero[0, 8:]).any(-1).all()


def test_captions_matter_and_padding_is_the_null_condition() -> None:
    model = make_transformer()
    tokens = torch.arange(10)[None]
    red, blue = (model(torch.tensor([[1, phrase, 0, 0]]), tokens) for phrase in (7, 8))
    assert (red != blue).any(-1).all()
    assert model.null_condition.tolist() == [0, 0, 0, 0]
    assert make_transformer(LLAMAGEN).null_condition.tolist() == [10]
