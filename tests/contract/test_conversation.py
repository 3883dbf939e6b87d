"""The whole conversation, product code on both sides: a picture is a function of its seed, never of timing.

A simulated cloud runs the product's sessions, the device's loop is the product's, and hypothesis chooses how long
everything takes: every frame's way, every pass, every row. Orders that two processes meet once a month come up here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciar.benchmarks.simulation.transport import Clock, SimulatedTransport, TimedDrafter, Times
from ciar.cloud_server.window import WindowPolicy
from ciar.device_client.decoding import Decoding, Request
from ciar.device_client.gates import CertifiedBudget, FixedThreshold, Gate, NearbyThreshold, RunningQuantile, VerifyAll
from ciar.device_client.token_buffer import TokenBuffer
from ciar.device_client.waiting import Deadline, RetryPolicy
from ciar.shared.types import Open, Sampling, Tokens, Verify
from tests.support.fake_runner import FakeRunner, R, T, V, admitted, logits_after, make_session, own_picture
from tests.support.hash_drafter import HashDrafter

CONDITION = np.array((1, 2), np.int64)
UNIFORM = tuple(np.linspace(0, 1, 11).tolist())
GATES: dict[str, Callable[[], Gate]] = {
    "threshold": lambda: FixedThreshold(0.5),
    "quantile": lambda: RunningQuantile(0.4, UNIFORM),
    "certified": lambda: CertifiedBudget(2.0, T),
    "nearby": lambda: NearbyThreshold(0.3, 0.7, UNIFORM, 4),
}


def cloud_logits(tokens: Tokens) -> np.ndarray:
    return logits_after(CONDITION, tokens, np.zeros((len(tokens), R), np.float32))


def generate(
    gate: Gate,
    verify: Verify,
    times: Times,
    *,
    temperature: float = 1.0,
    num_prefix_tokens: int = 0,
    max_window: int = 0,
    max_ahead: int = T,
    drafts: bool = True,
    seed: int = 5,
) -> TokenBuffer:
    clock, policy, buffer = Clock(), WindowPolicy(), TokenBuffer(T)

    def make(request: Open, reply: object) -> object:
        return make_session(
            admitted(
                verify=request.verify,
                num_prefix_tokens=request.num_prefix_tokens,
                max_window=request.max_window or 64,
                history=request.history.tolist(),
                sampling=request.sampling,
            ),
            reply,  # type: ignore[arg-type]
            policy=policy,
        )

    drafter = (
        TimedDrafter(HashDrafter(V, cloud_logits, checks_rows=verify is Verify.MARKED), clock, times)
        if drafts
        else None
    )
    sampling = Sampling(seed=seed, temperature=temperature)
    Decoding(
        Request("x", sampling, "", verify, num_prefix_tokens, max_window, max_ahead, V),
        transport=SimulatedTransport(FakeRunner().extend, make, times, clock),  # type: ignore[arg-type]
        drafter=drafter,
        gate=gate,
        buffer=buffer,
        deadline=Deadline(60),
        retry=RetryPolicy(),
    ).run()
    return buffer


LOCK_STEP = Times(1.0, 0.01, lambda: 0.0, 0.0, 0.0, 0.0)


@st.composite
def any_times(draw: st.DrawFn) -> Times:
    source = random.Random(draw(st.integers(0, 2**32)))
    longest = draw(st.sampled_from([0.0, 0.5, 5.0, 50.0]))
    return Times(
        pass_ms=draw(st.sampled_from([0.1, 1.0, 20.0])),
        row_ms=draw(st.sampled_from([0.001, 0.1, 5.0])),
        one_way_ms=lambda: source.uniform(0, longest),
        run_ms=draw(st.sampled_from([0.0, 0.1, 3.0])),
        drafted_row_ms=0.01,
        wake_ms=0.1,
    )


QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("name", GATES)
@given(times=any_times(), max_window=st.sampled_from([0, 1, 3]), max_ahead=st.integers(1, T))
@QUICK
def test_a_gated_picture_does_not_depend_on_timing(name: str, times: Times, max_window: int, max_ahead: int) -> None:
    expected = generate(GATES[name](), Verify.MARKED, LOCK_STEP, max_window=1, max_ahead=1)
    buffer = generate(GATES[name](), Verify.MARKED, times, max_window=max_window, max_ahead=max_ahead)
    assert buffer.tokens.tolist() == expected.tokens.tolist()
    assert buffer.decisions == expected.decisions
    np.testing.assert_array_equal(buffer.uncertainty, expected.uncertainty)


@pytest.mark.parametrize("name", GATES)
def test_forks_come_up_under_every_gate(name: str) -> None:
    slow = Times(1.0, 0.01, lambda: 3.0)
    assert any(generate(GATES[name](), Verify.MARKED, slow, seed=seed).num_forks for seed in range(20))


@given(times=any_times(), max_window=st.integers(0, 9), drafts=st.booleans(), temperature=st.sampled_from([0.0, 1.0]))
@QUICK
def test_where_all_is_verified_the_picture_is_the_clouds_own(
    times: Times, max_window: int, drafts: bool, temperature: float
) -> None:
    buffer = generate(VerifyAll(), Verify.ALL, times, max_window=max_window, drafts=drafts, temperature=temperature)
    if temperature == 0:
        assert buffer.tokens.tolist() == own_picture(CONDITION)
    else:
        one_a_pass = generate(VerifyAll(), Verify.ALL, LOCK_STEP, max_window=1, drafts=False)
        assert buffer.tokens.tolist() == one_a_pass.tokens.tolist()


@given(times=any_times(), num_prefix_tokens=st.integers(0, T))
@QUICK
def test_a_prefix_is_the_clouds_own_and_the_rest_does_not_depend_on_timing(
    times: Times, num_prefix_tokens: int
) -> None:
    expected = generate(
        FixedThreshold(0.5), Verify.MARKED, LOCK_STEP, num_prefix_tokens=num_prefix_tokens, max_window=1, max_ahead=1
    )
    buffer = generate(FixedThreshold(0.5), Verify.MARKED, times, num_prefix_tokens=num_prefix_tokens)
    assert buffer.tokens.tolist() == expected.tokens.tolist()
    assert buffer.decisions == expected.decisions


def test_windows_save_passes() -> None:
    one = [generate(VerifyAll(), Verify.ALL, LOCK_STEP, max_window=1, drafts=False, seed=seed) for seed in range(9)]
    drafted = [generate(VerifyAll(), Verify.ALL, LOCK_STEP, seed=seed) for seed in range(9)]
    assert {buffer.cost.num_passes for buffer in one} == {T}
    assert sum(buffer.cost.num_passes for buffer in drafted) < 9 * T
