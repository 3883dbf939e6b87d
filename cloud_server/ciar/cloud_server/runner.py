"""The model runner: one pass of the cloud model over the segments of many sessions.

In: segments (which rows to add to which slot, which logits are wanted). Out: guided float32 logits. Holds the weights
and the slot KV cache; knows nothing of tokens' meaning, epochs or frames. Rolling a slot back is just starting the next
segment at an earlier row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from ciar.cloud_server.batch import Segment
from ciar.cloud_server.ort_layers import OrtLayers
from ciar.cloud_server.transformer import Attend, Transformer, TransformerConfig
from ciar.shared.errors import PairMismatch


def load_transformer(folder: Path) -> Transformer:
    """The cloud model of a bundle, in float32, ready for inference.

    Raises PairMismatch that names the keys if the weights do not fit cloud.json.
    """
    config = TransformerConfig.model_validate_json((folder / "cloud.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        model = Transformer(config)
    weights = {name: tensor.float() for name, tensor in load_file(folder / "cloud.safetensors").items()}
    expected = model.state_dict()
    if wrong := sorted(
        name
        for name in expected.keys() | weights.keys()
        if name not in expected or name not in weights or expected[name].shape != weights[name].shape
    ):
        raise PairMismatch(f"bundle: cloud.safetensors does not fit cloud.json at {', '.join(wrong[:5])}")
    model.to_empty(device="cpu")
    model.load_state_dict(weights)
    model.reset_rope()
    return model.eval().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a segment lies: its rows in the packed input, its sequences and positions in the cache."""

    packed: slice
    cache_rows: slice
    start: int
    end: int
    rope_rows: slice | Tensor
    """(n,) positions of the new rows in the rotary table: their own, but for nodes of a tree."""
    mask: Tensor | None
    """Additive causal mask (n, end), None for a single new row."""


class _Layers(Protocol):
    """Where the layers run: the torch module, or ONNX Runtime."""

    def run(self, x: Tensor, rope: Tensor, attend: Attend) -> Tensor: ...

    def head(self, hidden: Tensor) -> Tensor: ...


class ModelRunner:
    """`extend`: the one thing that the engine asks of a model.

    The new rows of all segments are packed into one matrix, so every linear layer runs once a pass; attention runs by
    segment, over views of the cache, without padding or gathering.
    """

    def __init__(self, model: Transformer, num_slots: int, num_threads: int = 0) -> None:
        """num_slots: sessions cached at a time; num_threads: of a pass on the CPU, 0 for torch's default."""
        self._model = model
        config = model.config
        self._prefix_rows = config.caption_length
        weight = model.output.weight
        self._device = weight.device
        # Two sequences a slot: with the caption, and without it for guidance.
        shape = (config.num_layers, 2, 2 * num_slots, config.num_heads, self._prefix_rows + config.num_tokens)
        self._cache = torch.empty(*shape, config.head_dim, dtype=weight.dtype, device=self._device)
        self._null_condition = model.null_condition
        on_cpu = self._device.type == "cpu"
        self._layers: _Layers = OrtLayers(model, num_threads or torch.get_num_threads()) if on_cpu else model
        length = self._prefix_rows + config.num_tokens
        hidden = torch.ones(length, length, dtype=torch.bool, device=self._device).triu(1)
        self._mask = torch.zeros(length, length, dtype=self._cache.dtype, device=self._device)
        self._mask.masked_fill_(hidden, float("-inf"))  # (rows, columns)

    @torch.inference_mode()
    def extend(self, segments: Sequence[Segment]) -> list[NDArray[np.float32]]:
        """Add the segments' rows to their slots and return the logits (w, V) of each segment's wanted positions."""
        inputs = [self._embed(segment) for segment in segments]  # (R, n, d) each, R sequences
        spans = self._spans(segments, inputs)
        rope = torch.cat(
            [self._model.rope[s.rope_rows].repeat(x.shape[0], 1) for s, x in zip(spans, inputs, strict=True)]
        )
        hidden = self._layers.run(torch.cat([x.flatten(0, 1) for x in inputs]), rope, self._attend(spans))  # (N, d)
        wanted = [
            hidden[span.packed].view_as(x)[:, torch.from_numpy(segment.wanted + (self._prefix_rows - 1 - span.start))]
            for segment, span, x in zip(segments, spans, inputs, strict=True)
        ]  # (R, w, d) each
        logits = self._layers.head(torch.cat([rows.flatten(0, 1) for rows in wanted]))  # (Σ R·w, V)
        pieces = logits.split([rows.shape[0] * rows.shape[1] for rows in wanted])
        return [
            _guide(piece.view(*rows.shape[:2], -1), segment.guidance).cpu().numpy()
            for segment, rows, piece in zip(segments, wanted, pieces, strict=True)
        ]

    def _embed(self, segment: Segment) -> Tensor:
        """Input rows of a segment's sequences: (R, n, d), R = 2 with guidance, else 1."""
        model = self._model
        condition = torch.from_numpy(segment.condition).to(self._device)[None]  # (1, C)
        if segment.guidance > 1:
            condition = torch.cat([condition, self._null_condition[None]])  # (2, C)
        features = None
        if segment.features is not None:
            features = torch.from_numpy(segment.features).to(self._device)
        tokens = torch.from_numpy(segment.tokens).to(self._device)
        rows = model.embed_tokens(tokens, features)  # (k, d)
        prefix = model.embed_prefix(condition)  # (R, C, d)
        bias = model.condition_bias(prefix)  # (R, d) or None
        rows = rows.expand(len(condition), -1, -1) if bias is None else rows + bias[:, None]  # (R, k, d)
        return torch.cat([prefix, rows], dim=1) if segment.start == 0 else rows

    def _spans(self, segments: Sequence[Segment], inputs: Sequence[Tensor]) -> list[_Span]:
        spans, offset = [], 0
        for segment, x in zip(segments, inputs, strict=True):
            num_sequences, num_rows, _ = x.shape
            first = 2 * segment.slot
            rope_rows, mask = self._layout(segment)
            spans.append(
                _Span(
                    packed=slice(offset, offset + num_sequences * num_rows),
                    cache_rows=slice(first, first + num_sequences),
                    start=segment.start,
                    end=segment.end,
                    rope_rows=rope_rows,
                    mask=mask if num_rows > 1 else None,
                )
            )
            offset += num_sequences * num_rows
        return spans

    def _layout(self, segment: Segment) -> tuple[slice | Tensor, Tensor]:
        """Where the new rows stand, and what they see: rotary rows (n,), additive mask (n, end)."""
        rows = slice(segment.start, segment.end)
        return rows, self._mask[rows, : segment.end]

    def _attend(self, spans: Sequence[_Span]) -> Attend:
        cache = self._cache

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            outputs = []
            for span in spans:
                keys, values = cache[layer, :, span.cache_rows]  # (R, H, S, Dh) each
                shape = (keys.shape[0], -1, *q.shape[1:])
                keys[:, :, span.start : span.end] = k[span.packed].view(shape).transpose(1, 2)
                values[:, :, span.start : span.end] = v[span.packed].view(shape).transpose(1, 2)
                out = F.scaled_dot_product_attention(
                    q[span.packed].view(shape).transpose(1, 2),  # (R, H, n, Dh)
                    keys[:, :, : span.end],
                    values[:, :, : span.end],
                    attn_mask=span.mask,
                )
                outputs.append(out.transpose(1, 2).flatten(0, 1))  # (R·n, H, Dh)
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

        return attend


def _guide(logits: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance u + s·(c − u) of logits (2, w, V) -> (w, V); (1, w, V) has none."""
    if len(logits) == 1:
        return logits[0]
    conditional, unconditional = logits[0], logits[1]
    return unconditional + guidance * (conditional - unconditional)
