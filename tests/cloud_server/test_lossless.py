"""With every token verified, the picture is the cloud's own for that seed, whatever the device drafts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ciar.shared.types import Sampling, Summary, Verify
from tests.support.raw_client import RawClient
from tests.support.running_cloud import RunningCloud

SAMPLINGS = [
    Sampling(seed=1),
    Sampling(seed=2, guidance=3.0),
    Sampling(seed=3, guidance=1.5, temperature=0.7, top_k=20, top_p=0.9),
    Sampling(seed=4, temperature=0.0),
    Sampling(seed=2**64 - 1, temperature=1.3, guidance=7.5),
]


NUM_TOKENS, VOCAB_SIZE = 36, 64


def generate_with_random_drafter(
    client: RawClient,
    sampling: Sampling,
    *,
    rng: np.random.Generator,
    verify: Verify,
    num_prefix_tokens: int = 2,
    hit_rate: float = 0.0,
) -> tuple[list[int], Summary]:
    """A picture whose drafts are random tokens, in frames of random length, all marked.

    hit_rate: share of drafted tokens that are the right ones, so that acceptance happens too.
    """
    right = client.generate(sampling=sampling)
    conversation = client.opened(sampling=sampling, num_prefix_tokens=num_prefix_tokens, verify=verify)
    start = len(conversation.tokens)
    while start < NUM_TOKENS:
        length = int(rng.integers(1, min(8, NUM_TOKENS - start) + 1))
        tokens = rng.integers(0, VOCAB_SIZE, length)
        hits = rng.random(length) < hit_rate
        tokens[hits] = np.array(right[start : start + length])[hits]
        conversation.send(conversation.draft(tokens.tolist(), start=start))
        start += length
    while len(conversation.tokens) < NUM_TOKENS:
        conversation.read()
    return conversation.tokens, conversation.finish()


@pytest.mark.parametrize("verify", Verify)
@pytest.mark.parametrize("hit_rate", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=repr)
def test_random_drafter_reaches_the_clouds_own_tokens(
    cloud: RunningCloud, tiny_bundle: Path, sampling: Sampling, hit_rate: float, verify: Verify
) -> None:
    rng = np.random.default_rng(sampling.seed)
    with RawClient(cloud.address, tiny_bundle) as client:
        alone = client.generate(sampling=sampling)
        prefix = 2 if verify is Verify.MARKED else 0
        together, summary = generate_with_random_drafter(
            client, sampling, rng=rng, hit_rate=hit_rate, verify=verify, num_prefix_tokens=prefix
        )
    assert together == alone
    if hit_rate == 0:
        assert summary.num_rejections > 0


@pytest.mark.parametrize("num_prefix_tokens", [0, 1, 7, 36])
def test_any_prefix_length_gives_the_same_picture(
    cloud: RunningCloud, tiny_bundle: Path, num_prefix_tokens: int
) -> None:
    sampling = Sampling(seed=11, guidance=2.0)
    with RawClient(cloud.address, tiny_bundle) as client:
        together, _ = generate_with_random_drafter(
            client,
            sampling,
            rng=np.random.default_rng(0),
            num_prefix_tokens=num_prefix_tokens,
            hit_rate=0.5,
            verify=Verify.MARKED,
        )
        assert together == client.generate(sampling=sampling)


def test_many_clients_at_once_get_their_own_pictures(cloud: RunningCloud, tiny_bundle: Path) -> None:
    samplings = [Sampling(seed=100 + i, guidance=1.0 + i % 3) for i in range(6)]

    def generate(sampling: Sampling) -> list[int]:
        with RawClient(cloud.address, tiny_bundle) as client:
            rng = np.random.default_rng(sampling.seed)
            return generate_with_random_drafter(client, sampling, rng=rng, hit_rate=0.8, verify=Verify.MARKED)[0]

    with ThreadPoolExecutor(len(samplings)) as pool:
        pictures = list(pool.map(generate, samplings))
    with RawClient(cloud.address, tiny_bundle) as client:
        assert pictures == [client.generate(sampling=sampling) for sampling in samplings]
    assert len({tuple(picture) for picture in pictures}) == len(samplings)


def test_a_seed_is_a_picture_and_a_caption_too(cloud: RunningCloud, tiny_bundle: Path) -> None:
    with RawClient(cloud.address, tiny_bundle) as client:
        picture = client.generate(sampling=Sampling(seed=5))
        assert client.generate(sampling=Sampling(seed=5)) == picture
        assert client.generate(sampling=Sampling(seed=6)) != picture
        assert client.generate("blue star", Sampling(seed=5)) != picture
        assert client.generate(sampling=Sampling(seed=5), history=picture[:17]) == picture[17:]
