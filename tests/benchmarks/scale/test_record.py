"""Recording from the embedded pair, over real processes."""

from __future__ import annotations

from ciar.benchmarks.methods import find_method
from ciar.benchmarks.scale.record import SEED, record
from ciar.benchmarks.scale.trace import LETTERS
from ciar.device_client import Client, LocalServer

PROMPT = "red filled heart on cream"


def test_a_trace_holds_the_pictures_that_the_pair_draws() -> None:
    methods = {name: find_method(name) for name in ("cloud", "lossless", "ciar", "go-back", "device")}
    shown: list[int] = []
    trace = record(methods, (PROMPT,), ("blue outline star on white",), None, lambda _what, done: shown.append(done))
    assert [record.method for record in trace.records] == ["lossless", "ciar", "go-back"]
    assert shown == [0, 1, 2]
    assert "l" not in trace.records[0].decisions
    with LocalServer(arguments=("--threads", "1")) as server, Client(server.address) as client:
        result = client.generate(PROMPT, seed=SEED)
    letters = "".join(LETTERS[decision] for decision in result.decisions)
    carried_on, went_back = trace.records[1:]
    assert went_back.decisions == letters
    assert not went_back.forks
    # What was sent before a correction may have been replaced where the new draft is confirmed, and vice versa.
    assert carried_on.decisions.replace("x", "c") == letters.replace("x", "c")
    assert sum(letter == "x" for letter in carried_on.decisions) > 0
    assert list(carried_on.forks) == sorted(set(carried_on.forks))
