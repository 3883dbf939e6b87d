"""The lock-step roll-out: the tokens of the real client, and laws compared in context."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ciar.benchmarks.evaluation.pictures import Picture
from ciar.benchmarks.evaluation.rollout import (
    Pair,
    Play,
    Table,
    default_sampling,
    distribution,
    load_pair,
    plays,
    roll_out,
)
from ciar.cloud_server.settings import EMBEDDED_BUNDLE
from ciar.device_client import Client, Decision, Result
from ciar.shared.sampling import gumbel
from ciar.shared.types import Sampling, Tokens
from tests.support.fake_pair import SAMPLING, fake_pair, three
from tests.support.fake_runner import R, T, V, logits_after
from tests.support.in_process import InProcessTransport

PICTURES = (
    Picture("red filled heart on cream", 7, 0, (0, 0, 0, 0)),
    Picture("blue outline house on mint", 8, 0, (0, 0, 0, 0)),
)


def test_equal_laws_have_no_distance_and_give_the_clouds_own_tokens() -> None:
    own = roll_out(fake_pair(), three(), Play("cloud", "always"), SAMPLING)
    table = roll_out(fake_pair(), three(), Play("device", "never"), SAMPLING)
    drafted = table.tv[:, table.num_prefix :]
    assert drafted.shape == (3, T - 3)
    assert (drafted == 0).all()
    assert np.isnan(table.tv[:, : table.num_prefix]).all()
    assert table.greedy_agree[:, table.num_prefix :].all()
    assert (table.tokens == own.tokens).all()
    assert not table.asked.any()
    assert own.asked[:, own.num_prefix :].all()


def test_the_distance_is_that_of_the_sampled_laws_after_what_was_committed() -> None:
    pair = fake_pair(sharpness=0.3)
    sampling = Sampling(temperature=0.7, top_k=5)
    table = roll_out(pair, three(), Play("device", "never"), sampling)
    tokens, position = table.tokens[2], 9
    p_logits = logits_after(pair.vocabulary.encode("red heart"), tokens[:position], np.zeros((position, R), np.float32))
    p, q = distribution(p_logits, sampling), distribution(np.float32(0.3) * p_logits, sampling)
    assert 0.05 < 0.5 * np.abs(p - q).sum() == pytest.approx(table.tv[2, position], abs=1e-6)
    noise = gumbel(2, position, V)
    assert table.cloud[2, position] == (np.log(p, where=p > 0, out=np.full(V, -np.inf)) + noise).argmax()
    assert table.tokens[2, position] == table.drafted[2, position]


def test_only_locally_decided_tokens_carry_features_and_only_if_they_are_sent() -> None:
    def features(play: Play) -> list[bool]:
        pair = fake_pair()
        roll_out(pair, three()[:1], play, SAMPLING)
        segments = [segment for (segment,) in pair.runner.passes]  # type: ignore[attr-defined]
        return [segment.features is not None for segment in segments]

    with_features = features(Play("ciar, features", "threshold:0.5", send_features=True))
    # The segment of position t brings token t − 1; odd positions from 3 on were decided by the device.
    assert with_features == [t - 1 >= 3 and (t - 1) % 2 == 1 for t in range(T)]
    assert not any(features(Play("ciar", "threshold:0.5")))


def test_asked_tokens_are_the_clouds_and_the_others_the_devices() -> None:
    table = roll_out(fake_pair(sharpness=0.2), three(), Play("ciar", "threshold:0.5"), SAMPLING)
    span = slice(table.num_prefix, None)
    asked, tokens = table.asked[:, span], table.tokens[:, span]
    assert (asked == (np.arange(3, T) % 2 == 0)).all()
    assert (tokens[asked] == table.cloud[:, span][asked]).all()
    assert (tokens[~asked] == table.drafted[:, span][~asked]).all()
    assert (table.cloud[:, span] != table.drafted[:, span]).any()


def test_the_law_of_greedy_decoding_is_a_point() -> None:
    assert distribution(np.array([0.0, 3.0, 1.0], np.float32), Sampling(temperature=0)).tolist() == [0, 1, 0]


def test_a_table_survives_the_disk(tmp_path: Path) -> None:
    table = roll_out(fake_pair(), three(), Play("ciar", "threshold:0.5"), SAMPLING)
    table.save(tmp_path / "table.npz")
    again = Table.load(tmp_path / "table.npz")
    assert again.num_prefix == table.num_prefix
    assert (again.tokens == table.tokens).all()
    assert set(again.scores) == set(table.scores)
    assert np.array_equal(again.scores["entropy"], table.scores["entropy"], equal_nan=True)
    assert [path.name for path in tmp_path.iterdir()] == ["table.npz"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    torch.set_num_threads(1)
    transport = InProcessTransport(EMBEDDED_BUNDLE)
    with Client(transport=transport, cache_dir=tmp_path_factory.mktemp("cache")) as client:
        yield client


@pytest.fixture(scope="module")
def pair() -> Pair:
    return load_pair(EMBEDDED_BUNDLE, num_lanes=len(PICTURES))


@pytest.mark.parametrize("name", ["cloud", "ciar", "device"])
def test_tokens_are_those_of_the_real_client(client: Client, pair: Pair, name: str) -> None:
    play = next(play for play in plays(pair.manifest) if play.name == name)
    table = roll_out(pair, PICTURES, play, default_sampling(pair.manifest))
    for picture, tokens, asked, ties in zip(PICTURES, table.tokens, table.asked, table.near_tie, strict=True):
        result = client.generate(picture.prompt, seed=picture.seed, mode=name)
        same = _num_equal(result, tokens, ties)
        asked_there = [decision in (Decision.ACCEPTED, Decision.RESAMPLED) for decision in result.decisions]
        if name != "cloud":  # the cloud alone asks nothing; in lock-step it is the closed gate
            assert asked_there[:same] == asked[:same].tolist()


def _num_equal(result: Result, tokens: Tokens, near_ties: np.ndarray) -> int:
    """Number of tokens before the first difference, which must be a near tie."""
    differing = np.flatnonzero(np.array(result.tokens) != tokens)
    if not len(differing):
        return len(tokens)
    assert near_ties[differing[0]] or differing[0] in result.near_ties
    return int(differing[0])
