"""With every token asked about, the picture is the cloud's own for that seed, whatever the device drafts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ciar.shared.types import Sampling, Summary
from tests.support.raw_client import RawClient
from tests.support.running_cloud import RunningCloud

SAMPLINGS = [
    Sampling(seed=1),
    Sampling(seed=2, guidance=3.0),
    Sampling(seed=3, guidance=1.5, temperature=0.7, top_k=20, top_p=0.9),
    Sampling(seed=4, temperature=0.0),
    Sampling(seed=2**64 - 1, temperature=1.3, guidance=7.5),
]


def draw_with_random_drafter(
    client: RawClient,
    sampling: Sampling,
    *,
    rng: np.random.Generator,
    num_prefix_tokens: int = 2,
    hit_rate: float = 0.0,
) -> tuple[list[int], Summary]:
    """A picture whose drafts are random tokens in blocks of random length, up to three in flight.

    hit_rate: share of drafted tokens that are the right ones, so that acceptance happens too.
    """
    manifest = client.manifest
    right = client.generate(sampling=sampling)
    conversation = client.opened(sampling=sampling, num_prefix_tokens=num_prefix_tokens)
    while len(conversation.tokens) < manifest.num_tokens:
        drafted, epoch, sent = len(conversation.tokens), conversation.epoch, 0
        for _ in range(rng.integers(1, 4)):
            if not (left := manifest.num_tokens - drafted):
                break
            length = int(rng.integers(1, min(8, left) + 1))
            tokens = rng.integers(0, manifest.vocab_size, length)
            hits = rng.random(length) < hit_rate
            tokens[hits] = np.array(right[drafted : drafted + length])[hits]
            conversation.send(conversation.draft(tokens.tolist(), start=drafted, epoch=epoch))
            drafted += length
            sent += 1
        for _ in range(sent):
            conversation.read()
    return conversation.tokens, conversation.finish()


@pytest.mark.parametrize("hit_rate", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=repr)
def test_random_drafter_reaches_the_clouds_own_tokens(
    cloud: RunningCloud, tiny_bundle: Path, sampling: Sampling, hit_rate: float
) -> None:
    rng = np.random.default_rng(sampling.seed)
    with RawClient(cloud.address, tiny_bundle) as client:
        alone = client.generate(sampling=sampling)
        together, summary = draw_with_random_drafter(client, sampling, rng=rng, hit_rate=hit_rate)
    assert together == alone
    assert (summary.num_corrections == 0) == (hit_rate == 1.0)


@pytest.mark.parametrize("num_prefix_tokens", [0, 1, 7, 36])
def test_any_prefix_length_gives_the_same_picture(
    cloud: RunningCloud, tiny_bundle: Path, num_prefix_tokens: int
) -> None:
    sampling = Sampling(seed=11, guidance=2.0)
    with RawClient(cloud.address, tiny_bundle) as client:
        together, summary = draw_with_random_drafter(
            client, sampling, rng=np.random.default_rng(0), num_prefix_tokens=num_prefix_tokens, hit_rate=0.5
        )
        assert together == client.generate(sampling=sampling)
    assert summary.num_prefix_tokens == num_prefix_tokens


def test_many_clients_at_once_get_their_own_pictures(cloud: RunningCloud, tiny_bundle: Path) -> None:
    samplings = [Sampling(seed=100 + i, guidance=1.0 + i % 3) for i in range(6)]

    def draw(sampling: Sampling) -> list[int]:
        with RawClient(cloud.address, tiny_bundle) as client:
            return draw_with_random_drafter(client, sampling, rng=np.random.default_rng(sampling.seed), hit_rate=0.8)[0]

    with ThreadPoolExecutor(len(samplings)) as pool:
        pictures = list(pool.map(draw, samplings))
    with RawClient(cloud.address, tiny_bundle) as client:
        assert pictures == [client.generate(sampling=sampling) for sampling in samplings]
    assert len({tuple(picture) for picture in pictures}) == len(samplings)


def test_a_seed_is_a_picture_and_a_caption_too(cloud: RunningCloud, tiny_bundle: Path) -> None:
    with RawClient(cloud.address, tiny_bundle) as client:
        picture = client.generate(sampling=Sampling(seed=5))
        assert client.generate(sampling=Sampling(seed=5)) == picture
        assert client.generate(sampling=Sampling(seed=6)) != picture
        assert client.generate("blue star", Sampling(seed=5)) != picture
        assert client.generate(sampling=Sampling(seed=5), resume_tokens=picture[:17]) == picture[17:]
