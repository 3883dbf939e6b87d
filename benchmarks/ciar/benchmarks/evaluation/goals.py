"""What a pair is to reach, and whether it does: the figures that decide, taken from all parts of an evaluation.

In: the selective figures of the collaboration, the cost of the graph, the pictures' quality or None. Out: one `Goal`
for each figure. A figure that could not be measured is neither met nor missed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median, quantiles

from ciar.benchmarks.evaluation.distances import Ratio
from ciar.benchmarks.evaluation.quality import QualityReport
from ciar.benchmarks.evaluation.scorecost import GraphCost
from ciar.benchmarks.evaluation.selective import Estimate, Selective

CIAR = "ciar"

LOCAL_SHARE = 0.80
ACCEPTED_TV = 0.10
SHARE_OF_WAY = 0.9
AGREEMENT_OVER_ORACLE = 0.97
FRECHET_RATIO = 1.01
RECALL_RATIO = 0.99
GRAPH_RATIO = 1.25


@dataclass(frozen=True)
class Goal:
    """One line of the table."""

    figure: str
    paper: str
    """What the paper has."""
    goal: str
    measured: str
    met: bool | None
    """None: not measured, or for a person to judge."""

    @property
    def verdict(self) -> str:
        return "–" if self.met is None else "met" if self.met else "missed"


def goals(ciar: Selective, cost: GraphCost | None, quality: QualityReport | None) -> tuple[Goal, ...]:
    """All goals, in the order in which they are told. `ciar` is the collaboration's own roll-out, in context."""
    return (*_gate_goals(ciar), *_aurc_goals(ciar), *_quality_goals(quality), _cost_goal(cost), _PERSON)


def show(value: Estimate, style: str = ".3f") -> str:
    """A figure with its interval."""
    spread = "" if math.isnan(value.half_width) else f" ± {value.half_width:{style}}"
    return f"{value.mean:{style}}{spread}"


def show_spread(values: tuple[float, ...]) -> str:
    """Median and middle half."""
    low, _, high = quantiles(values, n=4)
    return f"{median(values):.2f}× ({low:.2f}–{high:.2f})"


def _gate_goals(ciar: Selective) -> Iterator[Goal]:
    for figure, paper, sign, bound, name in (
        ("tokens decided without the cloud, prefix excluded", "0.70", "≥", LOCAL_SHARE, "local_share"),
        ("mean TV in context among accepted tokens, at that share", "–", "≤", ACCEPTED_TV, "tv"),
        ("way from random to the oracle, in mean accepted TV", "–", "≥", SHARE_OF_WAY, "share_of_way"),
        (
            "coupled agreement among accepted tokens, over the oracle's",
            "–",
            "≥",
            AGREEMENT_OVER_ORACLE,
            "agreement_over_oracle",
        ),
    ):
        if ciar.gate is None:
            yield Goal(figure, paper, f"{sign} {bound:.2f}", "the gate asks about all tokens, or none", None)
        else:
            found: Estimate = getattr(ciar.gate, name)
            met = found.mean <= bound if sign == "≤" else found.mean >= bound
            yield Goal(figure, paper, f"{sign} {bound:.2f}", show(found), met)


def _aurc_goals(ciar: Selective) -> Iterator[Goal]:
    for rival, difference in ciar.rival_aurc.items():
        yield Goal(
            f"AURC of U minus that of {rival}",
            "better, by FID",
            "interval below 0",
            show(difference, ".4f"),
            None if math.isnan(difference.half_width) else difference.high < 0,
        )


def _quality_goals(quality: QualityReport | None) -> Iterator[Goal]:
    mode = None if quality is None else next(mode for mode in quality.modes if mode.mode == CIAR)
    for figure, paper, sign, bound, name in (
        ("Fréchet distance, ciar over cloud alone", "1.024", "≤", FRECHET_RATIO, "frechet_ratio"),
        ("caption retrieval, ciar over cloud alone", "0.999", "≥", RECALL_RATIO, "recall_ratio"),
    ):
        ratio: Ratio | None = None if mode is None else getattr(mode, name)
        if ratio is None:
            yield Goal(figure, paper, f"{sign} {bound:.2f}", "not measured", None)
        elif not math.isfinite(ratio.value):
            yield Goal(figure, paper, f"{sign} {bound:.2f}", "no ratio: the cloud alone has 0", None)
        else:
            met = ratio.value <= bound if sign == "≤" else ratio.value >= bound
            yield Goal(figure, paper, f"{sign} {bound:.2f}", str(ratio), met)


def _cost_goal(cost: GraphCost | None) -> Goal:
    figure = "Inter-Head and gate in the graph, over a plain head with arg-max"
    if cost is None:
        return Goal(figure, "–", f"≤ {GRAPH_RATIO:.2f}", "not measured", None)
    shown = f"{show_spread(cost.gated_ratio)}; with the interval feature {show_spread(cost.featured_ratio)}"
    return Goal(figure, "–", f"≤ {GRAPH_RATIO:.2f}", shown, median(cost.gated_ratio) <= GRAPH_RATIO)


_PERSON = Goal(
    "a person naming the picture from a list of 20, common training concepts",
    "–",
    "obvious at a glance",
    "look at contact_sheet.png (held-out combinations)",
    None,
)
