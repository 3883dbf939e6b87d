"""The main job on the embedded bundle: a server process and this process, over a real connection."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ciar.device_client import Client, Decision, Mode, Progress, Result, RetryPolicy, Unavailable
from tests.support.pictures import assert_same_picture
from tests.support.server_process import ServerProcess

PROMPTS = [
    f"{colour} {style} {thing} on {ground}"
    for (thing, style), colour, ground in zip(
        itertools.product(
            ("heart", "star", "cloud", "key", "bell", "leaf", "crown", "camera", "house", "flag"), ("filled", "outline")
        ),
        itertools.cycle(("red", "blue", "green", "black", "purple")),
        itertools.cycle(("white", "cream", "sky", "mint")),
        strict=False,
    )
]  # 20


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    process = ServerProcess()
    process.start()
    yield process
    process.terminate()


def test_lossless_is_the_clouds_own_picture(server: ServerProcess) -> None:
    with Client(server.address) as client:
        for prompt, seed in ((PROMPTS[0], 0), (PROMPTS[3], 2**64 - 1)):
            base = client.generate(prompt, seed=seed, mode=Mode.CLOUD, max_window=1)
            assert base.cost.num_passes == 256
            for mode, window in itertools.product((Mode.CLOUD, Mode.LOSSLESS), (4, 0)):
                picture = client.generate(prompt, seed=seed, mode=mode, max_window=window)
                assert_same_picture(picture, base)
                assert picture.cost.num_passes < 200
                assert Decision.LOCAL not in picture.decisions


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_lossless_is_the_clouds_own_picture_at_length(server: ServerProcess) -> None:
    """20 prompts × 3 seeds, windows 1 to 64, one client and four at once."""
    jobs = list(itertools.product(PROMPTS, (0, 1, 2)))
    with Client(server.address) as client:
        base = {job: client.generate(job[0], seed=job[1], mode=Mode.CLOUD, max_window=1) for job in jobs}
        for mode, window in itertools.product((Mode.CLOUD, Mode.LOSSLESS), (4, 16, 64)):
            for prompt, seed in jobs:
                picture = client.generate(prompt, seed=seed, mode=mode, max_window=window)
                assert_same_picture(picture, base[prompt, seed])

    def generate(worker: int) -> None:
        with Client(server.address) as client:
            for index, (prompt, seed) in enumerate(jobs):
                if index % 4 == worker:
                    mode = Mode.CLOUD if index % 8 < 4 else Mode.LOSSLESS
                    picture = client.generate(prompt, seed=seed, mode=mode)
                    assert_same_picture(picture, base[prompt, seed])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(generate, range(4)))


def test_ciar_is_a_function_of_the_seed_not_of_timing(server: ServerProcess) -> None:
    with Client(server.address) as client:
        pictures = [
            client.generate(PROMPTS[1], seed=5, mode=Mode.CIAR, max_window=window, max_ahead=ahead)
            for window, ahead in ((1, 4), (0, 64))
        ]
    assert {Decision.LOCAL, Decision.ACCEPTED, Decision.RESAMPLED} <= set(pictures[0].decisions)
    assert_same_picture(pictures[1], pictures[0])


def test_four_clients_at_once_draw_what_each_draws_alone(server: ServerProcess) -> None:
    def generate(prompt: str) -> Result:
        with Client(server.address) as client:
            return client.generate(prompt, seed=3, mode=Mode.LOSSLESS)

    with Client(server.address) as client:
        alone = [client.generate(prompt, seed=3, mode=Mode.CLOUD) for prompt in PROMPTS[:4]]
    with ThreadPoolExecutor(4) as pool:
        for together, base in zip(pool.map(generate, PROMPTS[:4]), alone, strict=True):
            assert_same_picture(together, base)


@pytest.mark.parametrize("mode", [Mode.LOSSLESS, Mode.CIAR, Mode.CLOUD])
def test_a_killed_server_comes_back_and_the_picture_is_that_of_an_undisturbed_run(mode: Mode) -> None:
    process = ServerProcess()
    process.start()
    restarted = threading.Event()

    def restart() -> None:
        process.kill()
        time.sleep(0.5)
        process.start()

    def disturb(progress: Progress) -> None:
        if progress.num_committed >= 100 and not restarted.is_set():
            restarted.set()
            threading.Thread(target=restart).start()

    try:
        with Client(process.address, retry=RetryPolicy(give_up_after_s=60)) as client:
            undisturbed = client.generate(PROMPTS[2], seed=9, mode=mode)
            disturbed = client.generate(PROMPTS[2], seed=9, mode=mode, on_progress=disturb)
    finally:
        process.terminate()
    assert restarted.is_set()
    assert disturbed.traffic.num_resumptions >= 1
    assert_same_picture(disturbed, undisturbed)


def test_a_server_killed_for_good_is_a_typed_error_with_what_was_decided() -> None:
    process = ServerProcess()
    process.start()
    with Client(process.address, retry=RetryPolicy(give_up_after_s=2)) as client:
        undisturbed = client.generate(PROMPTS[2], seed=9)
        killed = threading.Event()

        def disturb(progress: Progress) -> None:
            if progress.num_committed >= 60 and not killed.is_set():
                killed.set()
                process.kill()

        with pytest.raises(Unavailable) as caught:
            client.generate(PROMPTS[2], seed=9, on_progress=disturb, timeout_s=120)
    committed = caught.value.committed
    assert 60 <= len(committed) < len(undisturbed.tokens)
    assert committed == undisturbed.tokens[: len(committed)]


def test_sigterm_lets_a_running_picture_end(server: ServerProcess) -> None:
    process = ServerProcess()
    process.start()
    exit_codes: list[int] = []
    stopper = threading.Thread(target=lambda: exit_codes.append(process.terminate()))

    def disturb(progress: Progress) -> None:
        if progress.num_committed >= 40 and not stopper.is_alive() and not exit_codes:
            stopper.start()

    with Client(process.address) as client:
        picture = client.generate(PROMPTS[0], seed=1, on_progress=disturb)
    stopper.join(60)
    assert len(picture.tokens) == 256
    assert picture.traffic.num_resumptions == 0
    assert exit_codes == [0]
