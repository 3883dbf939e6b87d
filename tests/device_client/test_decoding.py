"""The decoding loop: what is final does not depend on breaks, and every wait has an end."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ciar.benchmarks.simulation.transport import Times
from ciar.device_client.decoding import Decoding, Request
from ciar.device_client.gates import FixedThreshold, Gate, RunningQuantile, VerifyAll, VerifyNone
from ciar.device_client.result import Decision
from ciar.device_client.token_buffer import TokenBuffer
from ciar.device_client.waiting import Deadline, RetryPolicy
from ciar.shared.bundle import Manifest, digest_of
from ciar.shared.errors import Busy, CiarError, InvalidRequest, TimedOut, Unavailable
from ciar.shared.types import Finish, Sampling, Verify
from tests.device_client.conftest import QUICK
from tests.device_client.fakes import FakeCloud, fake_drafter

SAMPLING = Sampling(seed=9)


def decode(
    cloud: FakeCloud,
    gate: Gate,
    *,
    verify: Verify = Verify.MARKED,
    num_prefix_tokens: int = 1,
    drafts: bool = True,
    alone: bool = False,
    timeout_s: float = 60,
    on_commit: Callable[[TokenBuffer], None] | None = None,
    retry: RetryPolicy = QUICK,
) -> tuple[TokenBuffer, Decoding]:
    manifest = cloud.manifest
    buffer = TokenBuffer(manifest.num_tokens)
    decoding = Decoding(
        Request(
            "x",
            SAMPLING,
            digest_of(manifest.model_dump_json()),
            verify,
            num_prefix_tokens if verify is Verify.MARKED else 0,
            0,
            8,
            manifest.vocab_size,
            alone,
        ),
        transport=cloud,
        drafter=fake_drafter(cloud, checks_rows=verify is Verify.MARKED) if drafts else None,
        gate=gate,
        buffer=buffer,
        deadline=Deadline(timeout_s),
        retry=retry,
        on_commit=on_commit,
    )
    decoding.run()
    return buffer, decoding


def quantile() -> Gate:
    return RunningQuantile(0.4, tuple(np.linspace(0, 1, 11).tolist()))


@pytest.mark.parametrize("drafts", [True, False])
def test_where_all_is_verified_it_is_the_clouds_own_picture(manifest: Manifest, drafts: bool) -> None:
    cloud = FakeCloud(manifest)
    buffer, _ = decode(cloud, VerifyAll(), verify=Verify.ALL, drafts=drafts)
    assert tuple(buffer.tokens.tolist()) == cloud.model.picture(SAMPLING)
    if drafts:
        assert {Decision.ACCEPTED, Decision.RESAMPLED} & set(buffer.decisions)
        assert cloud.drafts
    else:
        assert set(buffer.decisions) == {Decision.CLOUD}
        assert not cloud.drafts


@pytest.mark.parametrize("gate", [quantile, lambda: FixedThreshold(0.5)])
@given(number=st.integers(0, 40), again=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_a_picture_is_taken_up_wherever_it_broke(
    manifest: Manifest, gate: Callable[[], Gate], number: int, again: int
) -> None:
    expected, _ = decode(FakeCloud(manifest), gate())
    failures: dict[int, CiarError] = {number: Unavailable("gone"), number + again: Unavailable("gone again")}
    cloud = FakeCloud(manifest, failures=failures)
    buffer, decoding = decode(cloud, gate())
    assert buffer.tokens.tolist() == expected.tokens.tolist()
    assert buffer.decisions == expected.decisions
    assert len(cloud.opens) <= 3
    assert decoding.account.num_resumptions <= 2
    for opened, before in zip(cloud.opens[1:], cloud.opens, strict=False):
        assert len(opened.history) >= len(before.history)
        assert opened.history.tolist() == buffer.tokens[: len(opened.history)].tolist()


def test_lossless_is_taken_up_too(manifest: Manifest) -> None:
    for number in range(2, 12):
        cloud = FakeCloud(manifest, failures={number: Unavailable("gone")})
        buffer, _ = decode(cloud, VerifyAll(), verify=Verify.ALL)
        assert tuple(buffer.tokens.tolist()) == cloud.model.picture(SAMPLING)


def test_waiting_clouds_are_answered(manifest: Manifest) -> None:
    dear = Times(1.0, 1.0, lambda: 0.01)
    cloud = FakeCloud(manifest, times=dear)
    buffer, _ = decode(cloud, FixedThreshold(0.5))
    expected, _ = decode(FakeCloud(manifest), FixedThreshold(0.5))
    assert buffer.tokens.tolist() == expected.tokens.tolist()


def test_alone_it_lets_the_cloud_go_behind_the_prefix(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest)
    sent: list[object] = []
    generate = cloud.generate

    def spy(timeout_s: float) -> Any:
        session = generate(timeout_s)
        send = session.send
        session.send = lambda frame: (sent.append(frame), send(frame))[1]  # type: ignore[method-assign]
        return session

    cloud.generate = spy  # type: ignore[method-assign]
    buffer, _ = decode(cloud, VerifyNone(), num_prefix_tokens=3, alone=True)
    assert buffer.decisions.count(Decision.PREFIX) == 3
    assert buffer.decisions.count(Decision.LOCAL) == manifest.num_tokens - 3
    assert sum(isinstance(frame, Finish) for frame in sent) == 1
    assert not cloud.drafts


def test_progress_only_grows_and_ends_at_the_whole(manifest: Manifest) -> None:
    ends: list[int] = []
    decode(FakeCloud(manifest), FixedThreshold(0.5), on_commit=lambda buffer: ends.append(buffer.committed_end))
    assert ends == sorted(set(ends))
    assert ends[-1] == manifest.num_tokens


def test_patience_ends(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest, failures={number: Unavailable("gone") for number in range(100_000)})
    with pytest.raises(Unavailable, match="gone"):
        decode(cloud, VerifyAll())


def test_busy_is_waited_for_by_its_hint(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest, failures={0: Busy("full", 1), 1: Busy("full", 1)})
    buffer, decoding = decode(cloud, FixedThreshold(0.5))
    assert buffer.is_complete
    assert decoding.account.num_resumptions == 0, "nothing had been opened"


def test_the_deadline_ends_it(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest, failures=dict(zip(itertools.count(4), itertools.repeat(Busy("full", 1), 10_000))))
    with pytest.raises((TimedOut, Busy)):
        decode(cloud, VerifyAll(), timeout_s=0.2, retry=RetryPolicy(give_up_after_s=60))


def test_what_another_attempt_cannot_mend_is_raised_at_once(manifest: Manifest) -> None:
    cloud = FakeCloud(manifest, failures={3: InvalidRequest("draft.start: wrong")})
    with pytest.raises(InvalidRequest):
        decode(cloud, FixedThreshold(0.5))
    assert len(cloud.opens) == 1
