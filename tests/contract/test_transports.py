"""One suite on two transports: in process and over gRPC, a loop commits the same tokens and meets the same errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ciar.device_client.decoding import Decoding, Request
from ciar.device_client.gates import FixedThreshold, Gate, VerifyAll
from ciar.device_client.result import Decision
from ciar.device_client.token_buffer import TokenBuffer
from ciar.device_client.transport import GrpcTransport, Transport
from ciar.device_client.waiting import Deadline, RetryPolicy
from ciar.shared.bundle import MANIFEST, Manifest, digest_of, load_manifest
from ciar.shared.errors import CiarError, InvalidRequest, PairMismatch
from ciar.shared.types import Sampling, Tokens, Verify
from tests.support.hash_drafter import HashDrafter
from tests.support.in_process import InProcessTransport
from tests.support.running_cloud import RunningCloud

PROMPT = "red filled heart on cream"


@pytest.fixture(scope="module", params=["in process", "grpc"])
def transport(request: pytest.FixtureRequest, tiny_bundle: Path, cloud: RunningCloud) -> Iterator[Transport]:
    made = InProcessTransport(tiny_bundle) if request.param == "in process" else GrpcTransport(cloud.address)
    yield made
    made.close()


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Manifest:
    return load_manifest(tiny_bundle)


@pytest.fixture(scope="module")
def digest(tiny_bundle: Path) -> str:
    return digest_of((tiny_bundle / MANIFEST).read_text(encoding="utf-8"))


def generate(
    transport: Transport,
    manifest: Manifest,
    digest: str,
    *,
    gate: Gate | None = None,
    prompt: str = PROMPT,
    seed: int = 11,
    num_prefix_tokens: int = 0,
    max_window: int = 0,
    max_ahead: int = 12,
    drafts: bool = True,
) -> TokenBuffer:
    """gate None: everything is verified."""

    def no_logits(tokens: Tokens) -> np.ndarray:
        raise AssertionError("this drafter knows nothing of the cloud")

    buffer = TokenBuffer(manifest.num_tokens)
    Decoding(
        Request(
            prompt,
            Sampling(seed=seed, guidance=1.5),
            digest,
            Verify.ALL if gate is None else Verify.MARKED,
            num_prefix_tokens,
            max_window,
            max_ahead,
            manifest.vocab_size,
        ),
        transport=transport,
        drafter=HashDrafter(manifest.vocab_size, no_logits, agreement=0.0, checks_rows=gate is not None)
        if drafts
        else None,
        gate=gate or VerifyAll(),
        buffer=buffer,
        deadline=Deadline(60),
        retry=RetryPolicy(),
    ).run()
    return buffer


@pytest.mark.parametrize("max_window", [1, 0])
def test_a_gated_picture_is_the_same_on_both_transports(
    transport: Transport, manifest: Manifest, digest: str, tiny_bundle: Path, max_window: int
) -> None:
    in_process = InProcessTransport(tiny_bundle)
    for seed in range(6):
        settings = {"seed": seed, "num_prefix_tokens": 3}
        expected = generate(
            in_process, manifest, digest, gate=FixedThreshold(0.5), max_window=1, max_ahead=1, **settings
        )
        buffer = generate(transport, manifest, digest, gate=FixedThreshold(0.5), max_window=max_window, **settings)
        assert buffer.tokens.tolist() == expected.tokens.tolist()
        assert buffer.decisions == expected.decisions
        assert {Decision.PREFIX, Decision.LOCAL, Decision.RESAMPLED} <= set(buffer.decisions)
    in_process.close()


def test_where_all_is_verified_drafts_and_windows_change_nothing(
    transport: Transport, manifest: Manifest, digest: str
) -> None:
    for seed in range(6):
        alone = generate(transport, manifest, digest, seed=seed, drafts=False, max_window=1)
        assert alone.cost.num_passes == manifest.num_tokens
        for settings in ({"drafts": False}, {"drafts": True}, {"drafts": True, "max_window": 5}):
            buffer = generate(transport, manifest, digest, seed=seed, **settings)
            assert buffer.tokens.tolist() == alone.tokens.tolist()


@pytest.mark.parametrize(
    ("changes", "error", "names"),
    [
        ({"prompt": "red filled hart"}, InvalidRequest, "hart"),
        ({"prompt": "x" * 5000}, InvalidRequest, "prompt"),
        ({"num_prefix_tokens": 1000}, InvalidRequest, "num_prefix_tokens"),
        ({"digest": "0" * 64}, PairMismatch, "bundle_digest"),
    ],
)
def test_errors_are_equal_on_both_transports(
    transport: Transport,
    manifest: Manifest,
    digest: str,
    changes: dict[str, object],
    error: type[CiarError],
    names: str,
) -> None:
    settings = {"digest": digest, "gate": FixedThreshold(0.5)} | changes
    with pytest.raises(error, match=names):
        generate(transport, manifest, **settings)  # type: ignore[arg-type]
