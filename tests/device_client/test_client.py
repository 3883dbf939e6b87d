"""The SDK through its seam: modes, defaults, errors, progress and costs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ciar.benchmarks.simulation.transport import Times
from ciar.device_client import (
    Client,
    Decision,
    InvalidRequest,
    Mode,
    PairMismatch,
    Progress,
    ProtocolError,
    TimedOut,
    Unavailable,
    VerifyAll,
    heatmap,
)
from ciar.device_client.heatmap import COLOURS
from ciar.shared.bundle import Manifest
from ciar.shared.types import Sampling
from tests.device_client.fakes import FakeCloud

MakeClient = Callable[..., tuple[Client, FakeCloud]]


@pytest.mark.parametrize("mode", [Mode.LOSSLESS, Mode.CLOUD, "lossless"])
def test_lossless_is_what_the_cloud_draws_alone(make_client: MakeClient, mode: Mode) -> None:
    client, cloud = make_client()
    result = client.generate("x", seed=2**64 - 1, mode=mode)
    assert result.tokens == cloud.model.picture(Sampling(seed=2**64 - 1))
    assert result.cloud_share == 1


def test_windows_and_delay_do_not_change_a_picture(make_client: MakeClient) -> None:
    slow = Times(3.0, 0.5, lambda: 7.0)
    pictures = [
        make_client(times=times)[0].generate("x", seed=4, max_window=window, max_ahead=ahead)
        for times, window, ahead in ((None, 1, 1), (slow, 0, 16))
    ]
    assert pictures[0].tokens == pictures[1].tokens
    assert pictures[0].decisions == pictures[1].decisions


def test_modes_say_who_decided(make_client: MakeClient) -> None:
    client, _ = make_client()
    decisions = {mode: set(client.generate("x", mode=mode).decisions) for mode in Mode}
    assert decisions[Mode.DEVICE] == {Decision.PREFIX, Decision.LOCAL}
    assert decisions[Mode.CLOUD] == {Decision.CLOUD}
    assert Decision.LOCAL not in decisions[Mode.LOSSLESS]
    assert Decision.LOCAL in decisions[Mode.CIAR]


def test_the_pairs_defaults_hold_unless_told_otherwise(make_client: MakeClient, manifest: Manifest) -> None:
    client, cloud = make_client()
    client.generate("a heart", seed=1)
    client.generate("a heart", seed=1, guidance=3, temperature=0.5, top_k=4, top_p=0.9, prefix_rate=0.5)
    first, second = cloud.opens
    assert first.prompt == "a heart"
    assert first.sampling == Sampling(seed=1)
    assert first.num_prefix_tokens == 1  # ⌊0.1 · 16⌋
    assert second.sampling == Sampling(seed=1, guidance=3, temperature=0.5, top_k=4, top_p=0.9)
    assert second.num_prefix_tokens == 8


@pytest.mark.parametrize("mode", ["cloud", "lossless", "ciar"])
def test_a_window_of_one_is_one_pass_a_token(make_client: MakeClient, mode: str) -> None:
    client, cloud = make_client()
    result = client.generate("x", mode=mode, max_window=1, gate="always" if mode == "ciar" else None)
    assert cloud.opens[0].max_window == 1
    assert result.cost.num_passes == 16
    assert client.generate("x", mode="cloud").tokens == result.tokens


def test_files_and_manifest_are_asked_for_once(make_client: MakeClient) -> None:
    client, cloud = make_client()
    for _ in range(2):
        client.generate("x")
    assert cloud.num_fetched == 2
    assert client.info() is client.info()


def test_a_gate_of_ones_own(make_client: MakeClient) -> None:
    client, _ = make_client()
    assert Decision.LOCAL not in client.generate("x", gate=VerifyAll()).decisions


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mode": "loseless"}, "mode: unknown mode 'loseless'; did you mean 'lossless'?"),
        ({"mode": "?"}, "mode: unknown mode '?'; known are ciar, lossless, cloud, device"),
        ({"seed": -1}, "sampling.seed: "),
        ({"seed": 2**64}, "sampling.seed: "),
        ({"temperature": float("nan")}, "sampling.temperature: "),
        ({"temperature": -0.1}, "sampling.temperature: "),
        ({"top_p": 0.0}, "sampling.top_p: "),
        ({"top_k": -1}, "sampling.top_k: "),
        ({"guidance": 0.5}, "sampling.guidance: "),
        ({"prefix_rate": 1.5}, "prefix_rate: must be in [0, 1]"),
        ({"prefix_rate": float("nan")}, "prefix_rate: "),
        ({"max_window": -1}, "max_window: must be a whole number, at least 0"),
        ({"max_window": True}, "max_window: "),
        ({"max_ahead": 0}, "max_ahead: "),
        ({"max_ahead": 1.5}, "max_ahead: "),
        ({"timeout_s": 0}, "timeout_s: must be above 0"),
        ({"timeout_s": float("nan")}, "timeout_s: "),
        ({"timeout_s": float("inf")}, "timeout_s: "),
        ({"gate": "quantil:1"}, "gate: "),
        ({"gate": "always", "mode": "cloud"}, "gate: mode 'cloud' has no gate"),
    ],
)
def test_a_wrong_value_is_named_before_a_session_is_opened(
    make_client: MakeClient, settings: dict[str, Any], sentence: str
) -> None:
    client, cloud = make_client()
    with pytest.raises(InvalidRequest) as caught:
        client.generate("x", **settings)
    assert str(caught.value).startswith(sentence)
    assert not cloud.opens


def test_no_address_is_a_sentence() -> None:
    with pytest.raises(InvalidRequest, match=r"^address: "):
        Client()


def test_an_error_tells_what_was_final(make_client: MakeClient) -> None:
    client, cloud = make_client(failures={number: Unavailable("gone") for number in range(4, 100_000)})
    with pytest.raises(Unavailable) as caught:
        client.generate("x", seed=1, mode="lossless")
    committed = caught.value.committed
    assert 0 < len(committed) < 16
    assert committed == cloud.model.picture(Sampling(seed=1))[: len(committed)]


def test_the_cloud_alone_resumes_too(make_client: MakeClient) -> None:
    client, cloud = make_client(failures={5: Unavailable("gone")})
    result = client.generate("x", seed=1, mode="cloud")
    assert result.tokens == cloud.model.picture(Sampling(seed=1))
    assert (result.traffic.num_resumptions, result.traffic.num_requests) == (1, 2)


def test_progress_ends_with_the_whole_picture(make_client: MakeClient) -> None:
    client, _ = make_client()
    steps: list[Progress] = []
    sizes = []

    def see(progress: Progress) -> None:
        steps.append(progress)
        sizes.append(progress.preview().size)

    for mode in Mode:
        steps.clear()
        client.generate("x", mode=mode, on_progress=see)
        committed = [step.num_committed for step in steps]
        assert committed == sorted(set(committed))
        assert committed[-1] == steps[-1].num_tokens == 16
    assert set(sizes) == {(8, 8)}


def test_an_error_in_the_callback_closes_the_picture_and_not_the_client(make_client: MakeClient) -> None:
    client, _ = make_client()

    def fail(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.generate("x", on_progress=fail)
    assert client.generate("x").tokens


def test_one_picture_at_a_time(make_client: MakeClient) -> None:
    client, _ = make_client()
    inside, leave = threading.Event(), threading.Event()

    def hold(_: Progress) -> None:
        inside.set()
        leave.wait(10)

    thread = threading.Thread(target=client.generate, args=("x",), kwargs={"on_progress": hold})
    thread.start()
    inside.wait(10)
    with pytest.raises(TimedOut, match="other pictures"):
        client.generate("x", timeout_s=0.05)
    leave.set()
    thread.join(10)


def test_a_result_is_one_line_of_json(make_client: MakeClient) -> None:
    client, _ = make_client()
    result = client.generate("x", seed=3)
    line = result.to_json()
    assert "\n" not in line
    told = json.loads(line)
    assert told["tokens"] == list(result.tokens)
    assert told["decisions"][0] == "prefix"
    assert told["uncertainty"][0] is None
    assert told["gate"] == "quantile:0.3"
    assert told["num_requests"] == result.traffic.num_requests
    assert told["cloud_cost"]["num_passes"] == result.cost.num_passes > 0
    parts = ("setup_s", "waiting_s", "drafting_s", "decoding_s", "other_s")
    assert sum(told[part] for part in parts) == pytest.approx(told["total_s"])


def test_a_heat_map_has_a_colour_for_every_decision(make_client: MakeClient) -> None:
    client, _ = make_client()
    result = client.generate("x", seed=3)
    picture = heatmap(result, width_px=400, opacity=1)
    assert picture.width == 400
    assert picture.height > 400
    for position, decision in enumerate(result.decisions):
        row, column = divmod(position, result.grid_width)
        assert picture.getpixel((column * 100 + 50, row * 100 + 50)) == COLOURS[decision]
    assert set(COLOURS) == set(Decision)


def test_a_manifest_that_does_not_parse_is_the_servers_fault(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, cloud = make_client()
    monkeypatch.setattr(cloud, "model_info", lambda timeout_s: ("{}", "fake", cloud.limits))
    with pytest.raises(ProtocolError, match="the server's manifest"):
        client.info()


def test_a_pair_without_a_drafter_is_refused(make_client: MakeClient) -> None:
    client, cloud = make_client()
    entry = cloud.manifest.files["decoder.onnx"]
    cloud.manifest = cloud.manifest.model_copy(update={"files": {"decoder.onnx": entry}})
    with pytest.raises(PairMismatch, match=r"drafter\.onnx"):
        client.generate("x")
