"""Goals and report, from tables written by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from ciar.benchmarks.evaluation.goals import Goal, goals
from ciar.benchmarks.evaluation.heldout import Loss
from ciar.benchmarks.evaluation.report import Evaluation, plain
from ciar.benchmarks.evaluation.scorecost import GraphCost, Timing
from ciar.benchmarks.evaluation.selective import Selective, estimate, judge
from tests.support.tables import some_scores, table

TV = np.array([[0.0, 0.1, 0.2, 0.0, 0.9]] * 4) * np.array([[1.0], [1.0], [0.9], [0.9]])
ASKED = TV > 0.5
GROUPS = [0, 1, 0, 1]


def perfect(**scores: np.ndarray) -> Selective:
    return judge(table(TV, ASKED, some_scores(TV, **scores), GROUPS, agree=TV < 0.5))


def cost(*ratios: float) -> GraphCost:
    timing = Timing(1.0, 2.0)
    return GraphCost(timing, timing, timing, ratios, ratios)


def evaluation(**changes: object) -> Evaluation:
    given: dict = {
        "configuration": {
            "bundle": {"name": "fake", "version": "1", "digest": "0", "num_tokens": 7, "vocab_size": 8},
            "num_pictures": 4, "num_prompts": 2, "held_out": True, "groups": [0, 1],
            "gate": "quantile", "num_prefix": 2, "sampling": {"temperature": 0.75},
            "environment": dict.fromkeys(("cpu", "cores", "python", "ciar", "torch", "onnxruntime", "numpy"), "?"),
        },
        "selective": {name: perfect() for name in ("cloud", "ciar")},
        "same_as_cloud": {"cloud": 1.0, "ciar": 0.8},
        "mass_inside": estimate([0.4, 0.4]),
        "score_costs": {2048: {"entropy": Timing(1.0, 2.0)}},
        "graph_cost": cost(1.0, 1.2, 1.4),
        "losses": {"held_out_sets": Loss(3, 0.5, 1.25)},
        "losses_note": "",
        "quality": None,
        "quality_note": "no drawings",
    }  # fmt: skip
    return Evaluation(**(given | changes))


def verdicts(found: tuple[Goal, ...]) -> list[str]:
    return [goal.verdict for goal in found]


def test_a_gate_that_knows_meets_its_goals_and_what_is_not_measured_is_neither() -> None:
    found = goals(perfect(entropy=-TV, **{"max probability": -TV}), cost(1.0, 1.2, 1.4), None)
    assert verdicts(found) == ["met"] * 6 + ["–"] * 2 + ["met", "–"]


def test_missed_goals_are_told() -> None:
    wrong = judge(table(TV, ~ASKED, some_scores(-TV, entropy=TV), GROUPS, agree=TV < 0.5))
    found = goals(wrong, cost(1.3, 1.3, 1.3), None)
    assert verdicts(found)[:5] == ["missed"] * 5
    assert verdicts(found)[8] == "missed"


def test_a_tie_between_scores_is_not_a_win() -> None:
    aurc = [goal for goal in goals(perfect(), None, None) if goal.figure.startswith("AURC")]
    assert verdicts(tuple(aurc)) == ["missed", "missed"]


def test_one_group_has_no_interval_and_no_verdict_on_scores() -> None:
    single = judge(table(TV, ASKED, some_scores(TV, entropy=-TV), [0] * 4, agree=TV < 0.5))
    aurc = [goal for goal in goals(single, None, None) if goal.figure.startswith("AURC")]
    assert [goal.met for goal in aurc] == [None, None]


def test_a_closed_gate_has_no_goals() -> None:
    closed = judge(table(TV, np.ones_like(ASKED), some_scores(TV), GROUPS))
    assert [goal.met for goal in goals(closed, None, None)[:4]] == [None] * 4


def test_the_report_is_json_and_markdown() -> None:
    found = evaluation()
    held = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert held["selective"]["ciar"]["gate"]["share_of_way"]["mean"] == 1
    assert held["selective"]["ciar"]["scores"][0]["tv"]["0.7"]["groups"] == pytest.approx([0.37 / 7] * 2, abs=1e-5)
    assert held["score_costs_us"]["2048"]["entropy"] == {"min_us": 1.0, "median_us": 2.0}
    assert json.dumps(found.summary(), allow_nan=False).count("\n") == 0
    text = found.markdown()
    for goal in found.goals:
        assert f"| {goal.figure} | {goal.paper} | {goal.goal} | {goal.measured} | {goal.verdict} |" in text
    assert "Left out: no drawings." in text
    assert "| held out sets | 3 | 0.5000 | 1.2500 |" in text
    assert "Left out: no run." in evaluation(losses={}, losses_note="no run").markdown()
    assert "nan" not in text


def test_tables_fit_a_terminal() -> None:
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        for rich_table in evaluation().tables():
            console.print(rich_table)
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 100
    assert "missed" in capture.get()


def test_plain_values_are_finite() -> None:
    assert plain({1: (float("nan"), 1 / 3, True, None)}) == {"1": [None, 0.333333, True, None]}
