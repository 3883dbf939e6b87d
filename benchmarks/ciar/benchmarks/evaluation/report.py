"""The figures of an evaluation for people and for programs: Markdown, JSON, and a short table for a terminal.

In: an `Evaluation`. Out: text. Measures nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table as RichTable

from ciar.benchmarks.evaluation.goals import CIAR, Goal, goals, show, show_spread
from ciar.benchmarks.evaluation.heldout import Loss
from ciar.benchmarks.evaluation.quality import QualityReport
from ciar.benchmarks.evaluation.scorecost import GraphCost, Timing
from ciar.benchmarks.evaluation.selective import COVERAGES, ORACLE, Estimate, Selective

CLOUD = "cloud"
NAMES = {"uncertainty": "U = Ω·Σ", "ambiguity": "Ω", "disparity": "Σ", ORACLE: "*oracle (knows the TV)*"}
"""Scores that are told by another name."""
CONTEXTS = {
    CIAR: "in the collaboration: after what device and cloud had committed",
    CLOUD: "teacher-forced: on sequences that the cloud wrote alone",
}
"""Play -> what its table is about, for the plays whose scores are reported."""


@dataclass(frozen=True)
class Evaluation:
    """All that was measured."""

    configuration: Mapping[str, Any]
    """In JSON's types: bundle, prompts, seeds, settings, machine."""
    selective: Mapping[str, Selective]
    """By play."""
    same_as_cloud: Mapping[str, float]
    """By play: share of the drafted positions that hold the token of the cloud's own picture."""
    mass_inside: Estimate
    """Mass of the cloud's law inside the drafter's bounds, on the cloud's own sequences, temperature 1."""
    score_costs: Mapping[int, Mapping[str, Timing]]
    """By vocabulary size and score."""
    graph_cost: GraphCost | None
    losses: Mapping[str, Loss]
    """Of the cloud model, by held-out split."""
    losses_note: str
    """Why there are none, or empty."""
    quality: QualityReport | None
    quality_note: str
    """Why there is no quality, or empty."""

    @property
    def goals(self) -> tuple[Goal, ...]:
        return goals(self.selective[CIAR], self.graph_cost, self.quality)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in JSON's types; what could not be computed is None."""
        held: dict[str, Any] = plain(
            {
                "configuration": dict(self.configuration),
                "goals": [asdict(goal) for goal in self.goals],
                "same_as_cloud": dict(self.same_as_cloud),
                "selective": {name: asdict(value) for name, value in self.selective.items()},
                "mass_inside": asdict(self.mass_inside),
                "score_costs_us": {
                    size: {name: timing._asdict() for name, timing in costs.items()}
                    for size, costs in self.score_costs.items()
                },
                "graph_cost": None if self.graph_cost is None else asdict(self.graph_cost),
                "held_out_losses": {name: loss._asdict() for name, loss in self.losses.items()},
                "losses_note": self.losses_note,
                "quality_note": self.quality_note,
            }
        )
        return held | {"quality": None if self.quality is None else self.quality.to_dict()}

    def summary(self) -> dict[str, Any]:
        """The part that fits in a line: goals, agreement, and what was evaluated."""
        held = self.to_dict()
        agreement = {name: plain(asdict(value.agreement)) for name, value in self.selective.items()}
        for figures in agreement.values():
            for figure in figures.values():
                del figure["groups"]
        bundle = held["configuration"]["bundle"]
        return {"bundle": bundle, "goals": held["goals"], "agreement": agreement, "quality_note": self.quality_note}

    def markdown(self) -> str:
        """The report as a file of its own."""
        return "\n".join(_markdown(self)) + "\n"

    def tables(self) -> Iterator[RichTable]:
        """The goals and the agreement, for a terminal of 100 columns."""
        yield _rich("Goals", ("figure", "paper", "goal", "measured", ""), [_goal_row(g) for g in self.goals])
        yield _rich(
            "Drafter and cloud over all drafted tokens",
            ("play", "greedy", "coupled", "mean TV", "as the cloud alone"),
            [_agreement_row(self, play) for play in self.selective],
        )


def plain(value: Any) -> Any:
    """JSON's types: keys as text, numbers to six digits, None for what is not a finite number."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _markdown(evaluation: Evaluation) -> Iterator[str]:
    configuration = evaluation.configuration
    yield "# Evaluation of a pair"
    yield ""
    yield from _setting(configuration)
    yield ""
    yield from _lines(
        "Goals", ("figure", "paper", "goal", "measured", "verdict"), [_goal_row(goal) for goal in evaluation.goals]
    )
    yield ""
    yield "Figures are means over groups of pictures ± half the 95 % interval of Student's t over groups."
    yield ""
    yield from _lines(
        "Agreement of drafter and cloud",
        ("play", "greedy", "coupled", "mean TV", "same token as the cloud alone"),
        [_agreement_row(evaluation, play) for play in evaluation.selective],
    )
    yield ""
    yield (
        "All but the last column *in context*: both laws after what the play had committed, over all drafted tokens, "
        "asked or not. Greedy: the same most likely token; coupled: the same token drawn with the same noise. The play "
        "`cloud` is the drafter teacher-forced on the cloud's own sequences; the lossless mode has the same tokens by "
        "construction."
    )
    for play, about in CONTEXTS.items():
        yield ""
        yield from _scores(evaluation.selective[play], f"The gate as a selective predictor, {about}")
    yield ""
    yield "![Risk against coverage](risk_coverage.png)"
    yield ""
    yield "![Where the laws differ](tv_by_position.png)"
    yield ""
    yield from _bounds(evaluation)
    yield ""
    yield from _costs(evaluation)
    yield ""
    yield from _losses(evaluation)
    yield ""
    yield "## Quality of the pictures"
    yield ""
    if evaluation.quality is None:
        yield f"Left out: {evaluation.quality_note}."
    else:
        yield from evaluation.quality.markdown()
    yield ""
    yield "![Each play for the same prompts and seeds](contact_sheet.png)"


def _setting(configuration: Mapping[str, Any]) -> Iterator[str]:
    bundle, machine = configuration["bundle"], configuration["environment"]
    prompts = "held-out prompts" if configuration["held_out"] else "of the bundle's own examples (none are held out)"
    yield "```"
    yield f"pair      {bundle['name']} {bundle['version']}, digest {bundle['digest']}, T = {bundle['num_tokens']}"
    yield (
        f"pictures  {configuration['num_pictures']} a play: {configuration['num_prompts']} {prompts} "
        f"for each of the groups {', '.join(map(str, configuration['groups']))}"
    )
    yield f"gate      {configuration['gate']}; prefix {configuration['num_prefix']} tokens"
    yield "sampling  " + ", ".join(f"{name} {value:g}" for name, value in configuration["sampling"].items())
    yield f"machine   {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}"
    yield "versions  " + ", ".join(f"{name} {machine[name]}" for name in ("ciar", "torch", "onnxruntime", "numpy"))
    yield "```"


def _goal_row(goal: Goal) -> tuple[str, ...]:
    return goal.figure, goal.paper, goal.goal, goal.measured, goal.verdict


def _agreement_row(evaluation: Evaluation, play: str) -> tuple[str, ...]:
    found = evaluation.selective[play].agreement
    return play, show(found.greedy), show(found.coupled), show(found.tv), f"{evaluation.same_as_cloud[play]:.3f}"


def _scores(found: Selective, title: str) -> Iterator[str]:
    at = [f"{figure} at {coverage:.0%}" for coverage in COVERAGES for figure in ("TV", "way", "agreement")]
    rows = [
        (
            NAMES.get(row.name, row.name),
            show(row.aurc, ".4f"),
            show(row.auroc),
            *(show(figure[coverage]) for coverage in COVERAGES for figure in (row.tv, row.share_of_way, row.agreement)),
        )
        for row in found.scores
    ]
    yield from _lines(title, ("score", "AURC", "AUROC", *at), rows)
    yield ""
    rivals = "; ".join(f"{rival} {show(value, '.4f')}" for rival, value in found.rival_aurc.items())
    yield (
        f"{found.num_positions} tokens of {found.num_pictures} pictures, those of a group ranked together. AURC: area "
        "under mean TV against coverage. AUROC: for the coupled draws differing. At a coverage: mean TV among the "
        "accepted, its share of the way from random to the oracle, and coupled agreement. U's AURC minus its rival's, "
        f"group by group on the same tokens: {rivals}."
    )
    if (gate := found.gate) is not None:
        yield ""
        yield (
            f"The gate itself accepted {show(gate.local_share)} of the tokens, with a mean TV of {show(gate.tv)} "
            f"(random {show(gate.random_tv)}, oracle {show(gate.oracle_tv)}: {show(gate.share_of_way)} of the way) and "
            f"a coupled agreement of {show(gate.agreement)} ({show(gate.agreement_over_oracle)} of the oracle's)."
        )


def _bounds(evaluation: Evaluation) -> Iterator[str]:
    rows = [
        (play, *map(show, (b.covered, b.covered_accepted)), show(b.budget, ".2f"), show(b.distance, ".2f"),
         show(b.pictures_covered))
        for play, b in ((play, found.bound) for play, found in evaluation.selective.items())
    ]  # fmt: skip
    yield from _lines(
        "What the interval certifies",
        ("play", "TV ≤ Ω/2", "among accepted", "Σ Ω/2 a picture", "Σ TV a picture", "pictures with Σ TV ≤ Σ Ω/2"),
        rows,
    )
    yield ""
    yield (
        "Shares of positions and pictures; the sums run over accepted tokens (where all are asked: over all). On the "
        f"cloud's own sequences, {show(evaluation.mass_inside)} of the mass of its law (at temperature 1) is on tokens "
        "whose probability lies inside their interval."
    )


def _costs(evaluation: Evaluation) -> Iterator[str]:
    sizes = list(evaluation.score_costs)
    names = list(evaluation.score_costs[sizes[0]]) if sizes else []
    yield from _lines(
        "What a score costs a token",
        ("score", *(f"V = {size:,}".replace(",", " ") for size in sizes)),
        [(name, *(_timing(evaluation.score_costs[size][name]) for size in sizes)) for name in names],
    )
    yield ""
    yield "Microseconds of processor time in numpy on one thread, from logits in memory: median (least) over rounds."
    if (cost := evaluation.graph_cost) is not None:
        yield ""
        yield (
            f"In the shipped graph a one-row step takes {_timing(cost.plain)} µs with a plain head and arg-max, "
            f"{_timing(cost.gated)} with the Inter-Head, its scores and a threshold: {show_spread(cost.gated_ratio)}, "
            f"and {_timing(cost.featured)} with the interval feature as well: {show_spread(cost.featured_ratio)}. "
            "Ratios round by round, in turn: median (middle half)."
        )


def _losses(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.losses:
        yield "## Held-out loss of the cloud model"
        yield ""
        yield f"Left out: {evaluation.losses_note}."
        return
    yield from _lines(
        "Held-out loss of the cloud model, nats a token",
        ("split", "pictures", "with its caption", "with another's"),
        [
            (name.replace("_", " "), f"{loss.num_pictures}", f"{loss.right:.4f}", f"{loss.wrong:.4f}")
            for name, loss in evaluation.losses.items()
        ],
    )


def _timing(timing: Timing) -> str:
    return f"{timing.median_us:.0f} ({timing.min_us:.0f})"


def _lines(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield f"| {' | '.join(columns)} |"
    yield "|---|" + "---:|" * (len(columns) - 1)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _rich(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RichTable:
    table = RichTable(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0), show_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
