"""Which engine for the cloud's pass on a CPU? The same guided pass by four engines, in turn, in one process.

    python -m ciar.benchmarks.cloud_step [--bundle PATH] [--rows 1 8] [--rounds 50]

Prints CPU milliseconds of one thread (process time: another job on the machine does not count, its cache misses do).
The floor is the time to read every weight once at the memory bandwidth that a plain sum reaches here.
"""

from __future__ import annotations

import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime as ort
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ciar.cloud_server.batch import Segment
from ciar.cloud_server.runner import ModelRunner, load_transformer
from ciar.cloud_server.settings import EMBEDDED_BUNDLE
from ciar.cloud_server.transformer import Transformer

PAST = 128
"""Rows already in the cache."""


class StatelessPass(nn.Module):
    """The transformer's pass as a pure function with real-valued rotations, which is what exporters take.

    x: (R·n, d); cosine, sine: (n, Dh/2); past: (L, 2, R, H, PAST, Dh); mask: (n, PAST + n). Returns logits (R·n, V) and
    the new keys and values (L, 2, R, H, n, Dh).
    """

    def __init__(self, model: Transformer, num_sequences: int) -> None:
        super().__init__()
        self.model, self.num_sequences = model, num_sequences

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, past: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        new = []
        for layer, block in enumerate(self.model.layers):
            attention = block.attention
            qkv = attention.wqkv(block.attention_norm(x))
            qkv = qkv.view(self.num_sequences, -1, 3, attention.num_heads, attention.head_dim)  # (R, n, 3, H, Dh)
            q, k, v = (z.transpose(1, 2) for z in qkv.unbind(2))  # (R, H, n, Dh)
            q, k = _rotate(q, cosine, sine), _rotate(k, cosine, sine)
            new.append(torch.stack([k, v]))
            keys = torch.cat([past[layer, 0], k], dim=2)
            values = torch.cat([past[layer, 1], v], dim=2)
            out = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)  # (R, H, n, Dh)
            x = x + attention.wo(out.transpose(1, 2).reshape(x.shape))
            x = x + block.feed_forward(block.ffn_norm(x))
        return self.model.output(self.model.norm(x)), torch.stack(new)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Interleaved pairs of x (R, H, n, Dh) turned by angles (n, Dh/2)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)


def engines(bundle: Path, num_rows: int) -> dict[str, Callable[[], object]]:
    """Each engine as a call that runs one guided pass of `num_rows` rows behind PAST rows."""
    model = load_transformer(bundle)
    config = model.config
    slot = Segment(
        slot=0,
        guidance=1.5,
        condition=np.ones(config.caption_length, np.int64),
        start=PAST,
        tokens=np.arange(num_rows),
        features=None,
        wanted=np.arange(num_rows) + PAST - config.caption_length + 1,
    )
    shape = (config.num_layers, 2, 2, config.num_heads, PAST, config.head_dim)
    rope = model.rope[PAST : PAST + num_rows]
    hidden = torch.ones(num_rows, PAST + num_rows, dtype=torch.bool).triu(PAST + 1)
    inputs = (
        torch.randn(2 * num_rows, config.dim),
        rope.real.contiguous(),
        rope.imag.contiguous(),
        torch.randn(shape),
        torch.zeros(num_rows, PAST + num_rows).masked_fill(hidden, float("-inf")),
    )
    stateless = StatelessPass(model, 2).eval()
    compiled = torch.compile(stateless)

    def eager() -> object:
        with torch.inference_mode():
            return stateless(*inputs)

    def by_compile() -> object:
        with torch.inference_mode():
            return compiled(*inputs)

    names = ["x", "cosine", "sine", "past", "mask"]
    buffer = io.BytesIO()
    torch.onnx.export(stateless, inputs, input_names=names, dynamo=True, verbose=False).save(buffer)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])
    feeds = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    runner = ModelRunner(load_transformer(bundle), num_slots=1)
    return {
        "torch eager": eager,
        "torch.compile": by_compile,
        "ONNX Runtime": lambda: session.run(None, feeds),
        "the server's runner": lambda: runner.extend([slot]),
    }


def floor_ms(bundle: Path) -> float:
    """Milliseconds to read all weights but the input embeddings once."""
    model = load_transformer(bundle)
    num_bytes = 4 * sum(p.numel() for name, p in model.named_parameters() if "embedding" not in name)
    source = torch.randn(num_bytes // 4)
    seconds = []
    for _ in range(20):
        began = time.process_time()
        source.sum()
        seconds.append(time.process_time() - began)
    return 1e3 * statistics.median(seconds)


def main(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = EMBEDDED_BUNDLE,
    rows: Annotated[list[int], typer.Option(help="Rows of a pass.")] = [1, 8],  # noqa: B006 — typer's way
    rounds: Annotated[int, typer.Option(help="Passes of each engine.")] = 50,
) -> None:
    """Time a guided pass of the cloud model by each engine."""
    torch.set_num_threads(1)
    floor = floor_ms(bundle)
    table = Table(title=f"one guided pass, CPU ms of one thread, {rounds} rounds; floor {floor:.2f}")
    for column in ("rows", "engine", "median", "min", "max"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    figures: list[dict[str, float | str]] = []
    for num_rows in rows:
        calls = engines(bundle, num_rows)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()
        for _ in range(rounds):
            for name, call in calls.items():
                began = time.process_time()
                call()
                seconds[name].append(1e3 * (time.process_time() - began))
        for name, values in seconds.items():
            median = statistics.median(values)
            table.add_row(str(num_rows), name, f"{median:.2f}", f"{min(values):.2f}", f"{max(values):.2f}")
            figures.append({"rows": num_rows, "engine": name, "median_ms": median, "min_ms": min(values)})
    Console().print(table)
    print(json.dumps({"floor_ms": floor, "passes": figures}))


if __name__ == "__main__":
    typer.run(main)
