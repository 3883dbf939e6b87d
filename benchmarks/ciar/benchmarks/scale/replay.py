"""The two ends of a replay: a gate that asks, and an acceptance rule that agrees, where a trace says so.

In: a trace. Out: what the SDK and the server take in place of their own gate and rule. Nothing else is replaced: the
drafter drafts, the gate's scores are computed and dropped, the cloud draws every token that it is asked about, and the
answer of that draw is thrown away. The picture's seed on the wire is the number of its record, so both ends look at
the same one.

What is drafted after a token that the cloud will correct is asked about where the *decided* picture was asked about:
what the real gate said of those drafts left no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ciar.benchmarks.methods import Method
from ciar.benchmarks.scale.trace import Record, Trace
from ciar.cloud_server.session import Admitted, RuleOf, own_rule
from ciar.device_client import Client, Gate, Mode, Progress, Result
from ciar.device_client.gates import Scores
from ciar.shared.errors import InvalidRequest
from ciar.shared.sampling import Draw
from ciar.shared.verification import Logits, Rule

ASKING = (Mode.CIAR, Mode.LOSSLESS)
"""Modes in which the cloud is asked, so that a trace is needed."""


class TraceGate:
    """Asks where a record says so, but at a fork only when it is drafted anew, so that it is a fork again."""

    def __init__(self, record: Record) -> None:
        self.name = f"trace of {record.method}"
        self._asked = record.asked.tolist()
        self._forks = set(record.forks)

    def ask(self, position: int, scores: Scores) -> bool:
        if position in self._forks:
            self._forks.remove(position)
            return not self._asked[position]
        return self._asked[position]

    def rollback(self, position: int) -> None:
        pass


def replaying(trace: Trace, rule_of: RuleOf = own_rule) -> RuleOf:
    """Rules that draw as those of `rule_of` do, and answer as the trace says."""

    def replayed_rule_of(admitted: Admitted) -> Rule:
        rule, number = rule_of(admitted), admitted.sampling.seed
        if number >= len(trace.records):
            return rule  # a picture that asks nothing
        agrees = trace.records[number].agrees.tolist()

        def replayed_rule(logits: Logits, position: int, drafted: int, *device_logits: Logits) -> Draw:
            own = rule(logits, position, drafted, *device_logits)
            if drafted < 0:  # the cloud writes
                return own
            if agrees[position]:
                return Draw(drafted, own.lead)
            return Draw(own.token if own.token != drafted else (drafted + 1) % logits.size, own.lead)

        return replayed_rule

    return replayed_rule_of


@dataclass(frozen=True)
class Replayed(Method):
    """A method whose decisions come from a trace."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    """Prompt -> number of its record."""
    silent: int = 0
    """The seed of pictures that ask nothing: the number after the last record."""

    def draw(
        self,
        client: Client,
        prompt: str,
        seed: int,
        setting: Any,
        *,
        timeout_s: float,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Result:
        """One picture. Raises what `Client.generate` raises."""
        number = self.numbers[prompt] if self.numbers else self.silent
        return super().draw(client, prompt, number, setting, timeout_s=timeout_s, on_progress=on_progress)


def require_chain(method: Method) -> None:
    """Raises InvalidRequest for a method that a trace cannot hold."""
    if "tree_nodes" in method.settings:
        raise InvalidRequest(f"method: {method.name} drafts trees, of which a trace says nothing; leave it out")


def replayed(method: Method, trace: Trace, settings: Mapping[str, Any]) -> Replayed:
    """The method with the trace's decisions; settings: more of `Client.generate`'s arguments.

    Raises InvalidRequest if the method asks and the trace does not have it for each of its prompts.
    """
    numbers = {record.prompt: number for number, record in enumerate(trace.records) if record.method == method.name}
    if method.mode in ASKING and len(numbers) != len(trace.prompts):
        raise InvalidRequest(
            f"trace: it has {len(numbers)} of {len(trace.prompts)} pictures of {method.name}; record one with it"
        )

    def gate(_setting: Any, number: int) -> Gate:
        return TraceGate(trace.records[number])

    own = {f.name: getattr(method, f.name) for f in fields(method)}
    changed: dict[str, Any] = {
        "gate": gate if method.mode is Mode.CIAR else None,
        "settings": {**method.settings, **settings},
        "doubt": None,
        "numbers": numbers if method.mode in ASKING else {},
        "silent": len(trace.records),
    }
    return Replayed(**(own | changed))
