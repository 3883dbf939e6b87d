"""How well drafts stand for the cloud's law, and how well each score ranks them.

Flows in: a drafter and a held-out `LawCache`. Flows out: `DrafterReport`. Knows nothing of gates on devices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ciar.training.drafter import Drafter, scores
from ciar.training.laws import LawCache
from ciar.training.ranking import accepted_mean, aurc, auroc
from ciar.training.sampling import gumbel

LOCAL_SHARES = (0.7, 0.8, 0.9)


@dataclass(frozen=True)
class PositionTable:
    """One number per token of the cache, flattened; scores rise with doubt."""

    total_variation: NDArray[np.float64]
    agree_coupled: NDArray[np.bool_]
    agree_greedy: NDArray[np.bool_]
    covered: NDArray[np.float64]
    """Mass of p_c on tokens whose probability lies inside the interval."""
    scores: dict[str, NDArray[np.float64]]


@torch.inference_mode()
def tabulate(drafter: Drafter, cache: LawCache, prefix: int, temperature: float, seed: int = 0) -> PositionTable:
    """Compare drafts and cloud at every position from `prefix` on, with common Gumbel noise.

    Distance, agreement, entropy and maximum probability are of the laws that tokens are drawn from, at `temperature`;
    intervals are about the law at temperature 1, as the cloud's logits are.
    """
    generator = torch.Generator().manual_seed(seed)
    columns: dict[str, list] = {}

    def add(name: str, values: torch.Tensor) -> None:
        columns.setdefault(name, []).append(values[:, prefix:].flatten().numpy())

    for condition, tokens, log_p in cache.batches(32):
        draft = drafter(condition, tokens)
        lower, upper = draft.interval()
        p = log_p.exp()
        add("covered", (p * ((p >= lower) & (p <= upper))).sum(-1))
        log_p, log_q = (torch.log_softmax(x / temperature, dim=-1) for x in (log_p, draft.center))
        noise = gumbel(log_p.shape, generator)
        tv = 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)
        add("tv", tv)
        add("coupled", (log_p + noise).argmax(-1) == (log_q + noise).argmax(-1))
        add("greedy", log_p.argmax(-1) == log_q.argmax(-1))
        ambiguity, _, uncertainty = scores(lower, upper)
        q = log_q.exp()
        add("U", uncertainty)
        add("Ω", ambiguity)
        add("entropy", -(q * log_q).sum(-1))
        add("max prob", -q.max(-1).values)
        add("oracle TV", tv)
    flat = {name: np.concatenate(parts) for name, parts in columns.items()}
    fixed = ("tv", "coupled", "greedy", "covered")
    return PositionTable(
        flat["tv"], flat["coupled"], flat["greedy"], flat["covered"], {n: v for n, v in flat.items() if n not in fixed}
    )


def header(first: str) -> list[str]:
    """Head of a Markdown table of `score_row`s."""
    shares = " | ".join(f"{share:.0%} local" for share in LOCAL_SHARES)
    return [f"| {first} | {shares} | AURC | AUROC |", "|---|" + "---|" * (len(LOCAL_SHARES) + 2)]


def report(table: PositionTable) -> list[str]:
    """Lines of a Markdown report: overall figures, then one row per score."""
    tv, coupled = table.total_variation, table.agree_coupled
    lines = [
        f"Positions {len(tv)}; mean TV {tv.mean():.3f}; agreement coupled {coupled.mean():.3f}, "
        f"greedy {table.agree_greedy.mean():.3f}; mass of p_c inside the interval {table.covered.mean():.3f}; "
        f"positions with TV ≤ Ω/2 {(tv <= table.scores['Ω'] / 2).mean():.3f}",
        "",
        *header("score"),
    ]
    return lines + [f"| {name} | {score_row(table, score)} |" for name, score in table.scores.items()]


def score_row(table: PositionTable, score: NDArray[np.float64]) -> str:
    """Cells of one score: coupled agreement / mean TV among the least doubtful, AURC of TV, AUROC of disagreement."""
    tv, coupled = table.total_variation, table.agree_coupled
    cells = [
        f"{accepted_mean(score, coupled, share):.3f} / {accepted_mean(score, tv, share):.3f}" for share in LOCAL_SHARES
    ]
    return f"{' | '.join(cells)} | {aurc(score, tv):.4f} | {auroc(score, ~coupled):.3f}"
