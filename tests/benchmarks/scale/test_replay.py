"""The ends of a replay: the gate asks, and the rule agrees, where the trace says so, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from ciar.benchmarks.methods import find_method
from ciar.benchmarks.scale.replay import TraceGate, replayed, replaying, require_chain
from ciar.benchmarks.scale.trace import Trace
from ciar.cloud_server.session import Admitted
from ciar.device_client.gates import Scores
from ciar.shared.errors import InvalidRequest
from ciar.shared.sampling import Draw
from ciar.shared.types import Block, Sampling
from ciar.shared.verification import Logits, Rule

LOGITS = np.zeros(8, np.float32)
OWN = Draw(3, 0.25)
"""What the rule under the replay draws."""


def rule_of_seed(trace: Trace, seed: int, seen: list[tuple[int, int]]) -> Rule:
    """The replayed rule of a session with that seed; `seen` gets (position, drafted) of every real draw."""

    def real_rule(logits: Logits, position: int, drafted: int, *_laws: Logits) -> Draw:
        seen.append((position, drafted))
        return OWN

    condition = np.ones(1, np.int64)
    admitted = Admitted("id", condition, Sampling(seed=seed), Block.empty(0), 15, 256, collaborative=True)
    return replaying(trace, lambda _admitted: real_rule)(admitted)


def test_the_gate_asks_where_the_picture_was_asked_about(trace: Trace) -> None:
    gate = TraceGate(trace.records[0])
    scores = Scores(9.0, 9.0, 81.0)
    asked = [position for position in range(256) if gate.ask(position, scores)]
    gate.rollback(100)
    assert asked == [position for position, letter in enumerate(trace.records[0].decisions) if letter in "cx"]
    assert [position for position in range(256) if gate.ask(position, scores)] == asked


def test_a_fork_is_drafted_otherwise_the_first_time(trace: Trace) -> None:
    record = trace.records[0]
    forks = (record.decisions.index("l"), record.decisions.index("c"))
    gate = TraceGate(record.model_copy(update={"forks": forks}))
    scores = Scores(9.0, 9.0, 81.0)
    first, again = ([gate.ask(position, scores) for position in range(256)] for _ in range(2))
    assert again == record.asked.tolist()
    assert [position for position in range(256) if first[position] != again[position]] == sorted(forks)


@pytest.mark.parametrize("drafted", [3, 5, 7])
def test_the_rule_agrees_where_the_cloud_agreed_whatever_it_draws(trace: Trace, drafted: int) -> None:
    seen: list[tuple[int, int]] = []
    rule = rule_of_seed(trace, 0, seen)
    for position, letter in enumerate(trace.records[0].decisions):
        verdict = rule(LOGITS, position, drafted)
        assert (verdict.token == drafted) == (letter != "x")
        assert 0 <= verdict.token < LOGITS.size
        assert verdict.lead == OWN.lead
    assert seen == [(position, drafted) for position in range(256)]  # every draw is paid for


def test_what_the_cloud_writes_is_its_own(trace: Trace) -> None:
    rule = rule_of_seed(trace, 0, [])
    assert [rule(LOGITS, position, -1).token for position in range(256)] == [OWN.token] * 256


def test_each_seed_replays_its_own_record_and_others_none(trace: Trace) -> None:
    rules = [rule_of_seed(trace, seed, []) for seed in (0, 1, 2)]
    position = trace.records[1].decisions.index("x")
    assert trace.records[0].decisions[position] != "x"
    assert [rule(LOGITS, position, 5).token == 5 for rule in rules] == [True, False, False]
    assert rules[2](LOGITS, position, OWN.token) == OWN


def test_a_method_keeps_all_but_its_decisions(trace: Trace) -> None:
    ciar = replayed(find_method("ciar"), trace, {"depth": 3})
    assert (ciar.name, ciar.mode) == ("ciar", find_method("ciar").mode)
    assert ciar.numbers == {"A star, red & filled": 0}
    assert ciar.settings == {"depth": 3}
    assert ciar.gate is not None
    assert ciar.gate(None, 0).name == "trace of ciar"  # type: ignore[arg-type]
    assert replayed(find_method("lossless"), trace, {}).gate is None
    code = replayed(find_method("code:0.3"), trace, {})
    assert (code.numbers, code.silent, code.settings) == ({}, 2, {"prefix_rate": 0.3})


def test_a_gate_that_must_be_calibrated_needs_no_calibration_in_a_replay(trace: Trace) -> None:
    record = trace.records[0].model_copy(update={"method": "entropy"})
    entropy = replayed(find_method("entropy"), trace.model_copy(update={"records": (record,)}), {})
    assert entropy.doubt is None
    assert find_method("entropy").doubt is not None


def test_trees_are_refused_since_no_trace_has_them() -> None:
    require_chain(find_method("lossless"))
    with pytest.raises(InvalidRequest, match=r"^method: eagle drafts trees"):
        require_chain(find_method("eagle"))


def test_a_method_that_the_trace_lacks_is_refused_by_name(trace: Trace) -> None:
    with pytest.raises(InvalidRequest, match=r"^trace: it has 0 of 1 pictures of ciar:0.1"):
        replayed(find_method("ciar:0.1"), trace, {})
