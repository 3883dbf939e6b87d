"""Tables of roll-outs written by hand."""

from __future__ import annotations

import numpy as np

from ciar.benchmarks.evaluation.rollout import Table

PREFIX = 2


def table(
    tv: np.ndarray, asked: np.ndarray, scores: dict[str, np.ndarray], group: list[int], agree: np.ndarray | None = None
) -> Table:
    """tv, asked, agree, scores: (N, n) of the drafted positions; a prefix is put before them."""

    def padded(values: np.ndarray, fill: float) -> np.ndarray:
        return np.concatenate([np.full((len(values), PREFIX), fill, values.dtype), values], axis=1)

    drafted = padded(np.zeros(tv.shape, np.int64), -1)
    agree = np.ones(tv.shape, np.bool_) if agree is None else agree
    return Table(
        num_prefix=PREFIX,
        group=np.array(group),
        tokens=drafted,
        drafted=drafted,
        cloud=padded(np.where(agree, 0, 1), 5),
        asked=padded(asked, False),
        near_tie=padded(np.zeros(tv.shape, np.bool_), False),
        tv=padded(tv.astype(np.float32), np.nan),
        greedy_agree=padded(np.ones(tv.shape, np.bool_), False),
        scores={name: padded(values.astype(np.float32), np.nan) for name, values in scores.items()},
    )


def some_scores(tv: np.ndarray, **given: np.ndarray) -> dict[str, np.ndarray]:
    return {name: given.get(name, tv) for name in ("uncertainty", "ambiguity", "entropy", "max probability")}
