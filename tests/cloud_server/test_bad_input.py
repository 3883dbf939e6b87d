"""Whatever a client sends gets its status and a sentence that names the field, and harms nobody else.

Over real gRPC, with a client that has no manners. After each bad input the same server must still draw a right picture.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciar.shared import codec
from ciar.shared.types import Finish, Sampling, Verdict, Verify
from ciar.v1 import service_pb2 as pb
from tests.support.raw_client import DEADLINE_S, Conversation, RawClient
from tests.support.running_cloud import RunningCloud

INVALID, PRECONDITION = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
EXHAUSTED, DEADLINE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED
UNAVAILABLE, NOT_FOUND = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND

StartCloud = Callable[..., RunningCloud]

GREEDY = Sampling(temperature=0.0)


@pytest.fixture
def client(cloud: RunningCloud, tiny_bundle: Path) -> Iterator[RawClient]:
    with RawClient(cloud.address, tiny_bundle) as client:
        yield client


def assert_refused(error: grpc.RpcError, code: grpc.StatusCode, sentence: str) -> None:
    assert error.code() is code, f"{error.code()}: {error.details()}"
    assert sentence in error.details()


def assert_still_serves(cloud: RunningCloud, client: RawClient) -> None:
    """All slots come free, and a good session on another connection gets the right picture."""
    wait_until(lambda: cloud.num_sessions == 0)
    with RawClient(cloud.address, cloud.settings.bundle) as good:
        alone = good.generate(sampling=GREEDY)
        conversation = good.opened(sampling=GREEDY)
        conversation.send(conversation.draft(alone[2:20]))
        while len(conversation.tokens) < 20:
            assert isinstance(conversation.read(), Verdict)
        assert conversation.tokens == alone[:20]
        conversation.finish()
    assert client.generate(sampling=GREEDY) == alone


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll, so that only a failure takes long."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


# ---- the first frame -----------------------------------------------------------------------------------------------

BAD_OPENS: dict[str, tuple[dict[str, object], grpc.StatusCode, str]] = {
    "wrong digest": ({"bundle_digest": "0" * 64}, PRECONDITION, "open.bundle_digest: 000000000000"),
    "no digest": ({"bundle_digest": ""}, PRECONDITION, "open.bundle_digest: none"),
    "history past the picture": ({"history": [1] * 37}, INVALID, "open.history: 37 tokens; the picture has 36"),
    "history outside the vocabulary": ({"history": [64]}, INVALID, "open.history: token 64 is outside"),
    "empty prompt": ({"prompt": ""}, INVALID, "prompt: no known word"),
    "unknown word": ({"prompt": "red haert"}, INVALID, "prompt: unknown word 'haert'; nearest known: heart"),
    "prompt too long": ({"prompt": "heart " * 1000}, INVALID, "prompt: 6000 bytes; at most 1024"),
    "too many phrases": (
        {"prompt": "heart star sun red blue"},
        INVALID,
        "prompt: 5 known phrases are more than the 4",
    ),
    "prefix past the picture": (
        {"num_prefix_tokens": 37},
        INVALID,
        "open.num_prefix_tokens: 37; the picture has 36",
    ),
    "huge prefix": ({"num_prefix_tokens": 2**32 - 1}, INVALID, "open.num_prefix_tokens"),
}


@pytest.mark.parametrize("case", BAD_OPENS)
def test_bad_open(cloud: RunningCloud, client: RawClient, case: str) -> None:
    fields, code, sentence = BAD_OPENS[case]
    conversation = client.converse()
    conversation.send(client.open_frame(**fields))  # type: ignore[arg-type]
    assert_refused(conversation.error(), code, sentence)
    assert_still_serves(cloud, client)


def test_an_open_must_say_what_is_verified(cloud: RunningCloud, client: RawClient) -> None:
    message = codec.encode_device_frame(client.open_frame())
    for value in (pb.VERIFY_UNSPECIFIED, 17):
        message.open.verify = value
        conversation = client.converse()
        conversation.send(message)
        assert_refused(conversation.error(), INVALID, "open.verify: not set, or of a later contract")
    assert_still_serves(cloud, client)


BAD_SAMPLING = [
    ("temperature", -1.0),
    ("temperature", float("nan")),
    ("temperature", float("inf")),
    ("top_p", 0.0),
    ("top_p", 1.01),
    ("guidance", 0.5),
    ("guidance", float("nan")),
    ("guidance", 1e30),
]


@pytest.mark.parametrize(("field", "value"), BAD_SAMPLING)
def test_bad_sampling(cloud: RunningCloud, client: RawClient, field: str, value: float) -> None:
    message = codec.encode_device_frame(client.open_frame())
    setattr(message.open.sampling, field, value)
    conversation = client.converse()
    conversation.send(message)
    assert_refused(conversation.error(), INVALID, f"sampling.{field}: ")
    assert_still_serves(cloud, client)


def test_draft_before_open(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.converse()
    conversation.send(conversation.draft([1]))
    assert_refused(conversation.error(), PRECONDITION, "frame: a stream begins with open")
    assert_still_serves(cloud, client)


def test_finish_before_open(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.converse()
    conversation.send(Finish())
    assert_refused(conversation.error(), PRECONDITION, "frame: a stream begins with open")
    assert_still_serves(cloud, client)


def test_stream_ended_before_open(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.converse()
    conversation.end()
    assert_refused(conversation.error(), PRECONDITION, "frame: the stream ended")
    assert_still_serves(cloud, client)


def test_empty_first_frame(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.converse()
    conversation.send(pb.GenerateRequest())
    assert_refused(conversation.error(), INVALID, "frame: empty; send open, draft or finish")
    assert_still_serves(cloud, client)


# ---- later frames --------------------------------------------------------------------------------------------------

BAD_DRAFTS: dict[str, tuple[pb.Draft, grpc.StatusCode, str]] = {
    "token out of range": (
        pb.Draft(seq=1, start=2, tokens=[5, 64], verify_mask=b"\x02"),
        INVALID,
        "draft.tokens: token 64 is outside the vocabulary of 64",
    ),
    "huge token": (pb.Draft(seq=1, start=2, tokens=[2**32 - 1]), INVALID, "draft.tokens: token 4294967295"),
    "too many tokens": (pb.Draft(seq=1, start=2, tokens=[1] * 70_000), INVALID, "draft.tokens: 70000 tokens; at most"),
    "gap": (pb.Draft(seq=1, start=3, tokens=[1]), INVALID, "draft.start: 3; it must be in [2, 2]"),
    "into the prefix": (pb.Draft(seq=1, start=1, tokens=[1]), INVALID, "draft.start: 1; it must be in [2, 2]"),
    "huge start": (pb.Draft(seq=1, start=2**32 - 1, tokens=[1]), INVALID, "draft.start: 4294967295"),
    "no number": (pb.Draft(start=2, tokens=[1]), PRECONDITION, "draft.seq: 0 after 0"),
    "a number left out": (pb.Draft(seq=2, start=2, tokens=[1]), PRECONDITION, "draft.seq: 2 after 0"),
    "verdicts that were not sent": (
        pb.Draft(seq=1, start=2, tokens=[1], num_verdicts=1000),
        PRECONDITION,
        "draft.num_verdicts: 1000",
    ),
    "past the end": (
        pb.Draft(seq=1, start=2, tokens=[1] * 35),
        INVALID,
        "draft.tokens: they end at 37, past the picture's 36",
    ),
    "mask too long": (
        pb.Draft(seq=1, start=2, tokens=[1], verify_mask=b"\x01\x00"),
        INVALID,
        "draft.verify_mask: 2 bytes for 1 tokens",
    ),
    "bits past the end": (
        pb.Draft(seq=1, start=2, tokens=[1], verify_mask=b"\x03"),
        INVALID,
        "draft.verify_mask: bits set past the last token",
    ),
}


@pytest.mark.parametrize("case", BAD_DRAFTS)
def test_bad_draft(cloud: RunningCloud, client: RawClient, case: str) -> None:
    draft, code, sentence = BAD_DRAFTS[case]
    conversation = client.opened()
    conversation.send(pb.GenerateRequest(draft=draft))
    assert_refused(conversation.error(), code, sentence)
    assert_still_serves(cloud, client)


def test_a_bad_draft_harms_no_session_beside_it(cloud: RunningCloud, client: RawClient) -> None:
    alone = client.generate(sampling=GREEDY)
    good, bad = client.opened(sampling=GREEDY), client.opened(sampling=GREEDY)
    good.send(good.draft(alone[2:10]))
    bad.send(pb.GenerateRequest(draft=BAD_DRAFTS["gap"][0]))
    assert_refused(bad.error(), INVALID, "draft.start")
    while len(good.tokens) < 10:
        good.read()
    good.send(good.draft(alone[10:36]))
    while len(good.tokens) < 36:
        good.read()
    assert good.tokens == alone
    assert good.finish().num_drafts >= 2  # and answers, if the cloud waited for them


def test_second_open(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.opened()
    conversation.send(client.open_frame())
    assert_refused(conversation.error(), PRECONDITION, "frame: a second open")
    assert_still_serves(cloud, client)


def test_empty_frame(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.opened()
    conversation.send(pb.GenerateRequest())
    assert_refused(conversation.error(), INVALID, "frame: empty; send open, draft or finish")
    assert_still_serves(cloud, client)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x0a\x7f", b"\x0a\x04\x0a\x02\xff\xfe"])
@pytest.mark.parametrize("opened", [False, True])
def test_bytes_that_are_no_message(cloud: RunningCloud, client: RawClient, data: bytes, opened: bool) -> None:
    """The last one is an open whose prompt is not UTF-8."""
    conversation = client.opened() if opened else client.converse()
    conversation.send_bytes(data)
    assert_refused(conversation.error(), INVALID, "frame: not a message of this contract")
    assert_still_serves(cloud, client)


@pytest.mark.parametrize("after", [Finish(), pb.GenerateRequest(), pb.GenerateRequest(draft=BAD_DRAFTS["gap"][0])])
def test_frames_after_finish(cloud: RunningCloud, client: RawClient, after: Finish | pb.GenerateRequest) -> None:
    conversation = client.opened()
    conversation.send(Finish())
    conversation.send(after)
    error = conversation.error()
    assert error.code() in (PRECONDITION, INVALID)
    assert "frame: " in error.details() or "draft." in error.details()
    assert_still_serves(cloud, client)


def test_open_after_finish(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.opened()
    conversation.send(Finish())
    conversation.send(client.open_frame())
    assert_refused(conversation.error(), PRECONDITION, "frame: nothing may follow finish")
    assert_still_serves(cloud, client)


def test_stream_ended_without_finish(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.opened()
    conversation.end()
    assert_refused(conversation.error(), PRECONDITION, "frame: the stream ended without finish")
    assert_still_serves(cloud, client)


def test_finish_ends_a_picture_with_a_draft_unanswered(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.opened(sampling=GREEDY)
    conversation.send(conversation.draft([1] * 10))
    assert conversation.finish().num_drafts == 1
    with pytest.raises(StopIteration):
        conversation.read()


def test_a_wrong_draft_is_resampled_and_goes_on(cloud: RunningCloud, client: RawClient) -> None:
    alone = client.generate(sampling=GREEDY)
    conversation = client.opened(sampling=GREEDY)
    conversation.send(conversation.draft([(token + 1) % 64 for token in alone[2:]]))
    while len(conversation.tokens) < 36:
        assert isinstance(conversation.read(), Verdict)
    assert conversation.tokens == alone
    summary = conversation.finish()
    assert (summary.num_forks, summary.num_verified) == (0, 36)
    assert summary.num_rejections > 0


@pytest.mark.parametrize("max_window", [1, 3, 0])
def test_a_window_changes_passes_and_not_tokens(client: RawClient, max_window: int) -> None:
    conversation = client.opened(verify=Verify.ALL, num_prefix_tokens=0, max_window=max_window, sampling=GREEDY)
    while len(conversation.tokens) < 36:
        conversation.read()
    assert conversation.tokens == client.generate(sampling=GREEDY)
    num_passes = conversation.finish().cost.num_passes
    assert num_passes == 36 if max_window == 1 else num_passes <= 36


# ---- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cloud", [{"max_message_bytes": 4096}], indirect=True)
class TestSizes:
    def test_oversized_message(self, cloud: RunningCloud, client: RawClient) -> None:
        conversation = client.opened()
        conversation.send_bytes(bytes(5000))
        assert_refused(conversation.error(), EXHAUSTED, "larger than max")
        wait_until(lambda: cloud.num_sessions == 0)
        assert len(client.generate()) == 36

    def test_oversized_request(self, cloud: RunningCloud, client: RawClient) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            client.generate(prompt="heart " * 1000)
        assert_refused(caught.value, EXHAUSTED, "larger than max")
        assert len(client.generate()) == 36


def test_too_many_drafts_in_flight(start_cloud: StartCloud, tiny_bundle: Path) -> None:
    cloud = start_cloud(max_in_flight=2)
    with RawClient(cloud.address, tiny_bundle) as client:
        conversation = client.opened()
        engine = cloud.server.engine
        release = hold(engine)
        try:
            for start in (2, 3, 4, 5, 6):
                conversation.send(conversation.draft([1], start=start))
            wait_until(lambda: engine._inbox.qsize() >= 2)
            time.sleep(0.2)
        finally:
            release()
        assert_refused(conversation.error(), PRECONDITION, "draft.seq: more than 2 drafts unanswered")
        assert_still_serves(cloud, client)


def hold(engine: object) -> Callable[[], None]:
    """Keep the engine's thread in a command until the returned function is called."""
    import threading

    gate, entered = threading.Event(), threading.Event()

    def command() -> None:
        entered.set()
        gate.wait(DEADLINE_S)

    engine._inbox.put(command)  # type: ignore[attr-defined]
    assert entered.wait(DEADLINE_S)
    return gate.set


def test_full_server_says_when_to_come_back(start_cloud: StartCloud, tiny_bundle: Path) -> None:
    cloud = start_cloud(max_sessions=2, retry_after_ms=1234)
    with RawClient(cloud.address, tiny_bundle) as client:
        held = [client.opened(), client.opened()]
        third = client.converse()
        third.send(client.open_frame())
        error = third.error()
        assert_refused(error, EXHAUSTED, "all 2 sessions are taken")
        metadata = dict(error.trailing_metadata())
        assert metadata["grpc-retry-pushback-ms"] == "1234"
        assert metadata["ciar-error"] == "Busy"
        with pytest.raises(grpc.RpcError) as caught:
            client.generate()
        assert_refused(caught.value, EXHAUSTED, "all 2 sessions are taken")
        held.pop().finish()
        wait_until(lambda: cloud.num_sessions == 1)
        client.opened().finish()
        held.pop().finish()
        assert_still_serves(cloud, client)


def test_a_bad_open_takes_no_slot(start_cloud: StartCloud, tiny_bundle: Path) -> None:
    cloud = start_cloud(max_sessions=1)
    with RawClient(cloud.address, tiny_bundle) as client:
        held = client.opened()
        bad = client.converse()
        bad.send(client.open_frame(prompt="nonsense"))
        assert_refused(bad.error(), INVALID, "prompt: unknown word")  # not RESOURCE_EXHAUSTED: it can never be served
        held.finish()
        assert_still_serves(cloud, client)


def test_silence_ends_a_session(start_cloud: StartCloud, tiny_bundle: Path) -> None:
    cloud = start_cloud(idle_timeout_s=0.2)
    with RawClient(cloud.address, tiny_bundle) as client:
        assert_refused(client.opened().error(), DEADLINE, "no frame for 0.2 s")
        assert_refused(client.converse().error(), DEADLINE, "no frame for 0.2 s")
        finished = client.opened()
        finished.send(Finish())  # and never ends its side of the stream
        assert_refused(finished.error(), DEADLINE, "no frame for 0.2 s")
        assert_still_serves(cloud, client)


def test_waiting_for_the_cloud_is_not_silence(start_cloud: StartCloud, tiny_bundle: Path) -> None:
    cloud = start_cloud(idle_timeout_s=0.2)
    with RawClient(cloud.address, tiny_bundle) as client:
        conversation = client.opened()
        release = hold(cloud.server.engine)
        conversation.send(conversation.draft([1]))
        time.sleep(0.6)
        release()
        assert isinstance(conversation.read(), Verdict)
        conversation.finish()


def test_a_picture_that_takes_too_long_ends(start_cloud: StartCloud, tiny_bundle: Path) -> None:
    cloud = start_cloud(session_timeout_s=0.3)
    with RawClient(cloud.address, tiny_bundle) as client:
        assert_refused(client.opened().error(), DEADLINE, "longer than 0.3 s")
        wait_until(lambda: cloud.num_sessions == 0)


# ---- vanishing clients ---------------------------------------------------------------------------------------------


def test_cancelling_frees_the_slot(start_cloud: StartCloud, tiny_bundle: Path) -> None:
    cloud = start_cloud(max_sessions=1)
    with RawClient(cloud.address, tiny_bundle) as client:
        for _ in range(5):
            conversation = client.opened()
            assert cloud.num_sessions == 1
            conversation.send(conversation.draft([1, 2, 3]))
            conversation.call.cancel()
            conversation.end()
            wait_until(lambda: cloud.num_sessions == 0)
        alone = client.opened(verify=Verify.ALL, num_prefix_tokens=0)
        alone.call.cancel()
        alone.end()
        assert_still_serves(cloud, client)


def test_a_vanished_connection_frees_the_slot(start_cloud: StartCloud, tiny_bundle: Path) -> None:
    cloud = start_cloud(max_sessions=1)
    with RawClient(cloud.address, tiny_bundle) as client:
        conversation = client.opened()
    conversation.end()
    with RawClient(cloud.address, tiny_bundle) as client:
        assert_still_serves(cloud, client)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 4096,
        bytes(range(256)) * 16,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 512,
    ],
)
def test_garbage_on_the_port(cloud: RunningCloud, client: RawClient, data: bytes) -> None:
    host, _, port = cloud.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
        connection.sendall(data)
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S):
        pass  # and one that says nothing
    assert_still_serves(cloud, client)


# ---- the other rpcs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "nothing.onnx", "cloud.safetensors", "manifest.json", "../manifest.json", "/etc/passwd", "x\0"]
)
def test_only_device_files_can_be_had(cloud: RunningCloud, client: RawClient, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(client.stub.GetArtifact(pb.GetArtifactRequest(name=name), timeout=DEADLINE_S))
    assert_refused(caught.value, NOT_FOUND, "name: no device file")
    assert "there are decoder.onnx, drafter.onnx" in caught.value.details()
    assert_still_serves(cloud, client)


@pytest.mark.parametrize("name", ["drafter.onnx", "decoder.onnx"])
def test_device_files_come_whole(client: RawClient, tiny_bundle: Path, name: str) -> None:
    chunks = list(client.stub.GetArtifact(pb.GetArtifactRequest(name=name), timeout=DEADLINE_S))
    assert b"".join(chunk.data for chunk in chunks) == (tiny_bundle / name).read_bytes()


def test_a_whole_history_leaves_nothing_to_do(client: RawClient) -> None:
    conversation = client.opened(verify=Verify.ALL, num_prefix_tokens=0, history=[1] * 36)
    assert conversation.finish().cost.num_passes == 0


def test_model_info_is_the_manifest_and_the_limits(cloud: RunningCloud, client: RawClient, tiny_bundle: Path) -> None:
    info = client.stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=DEADLINE_S)
    assert info.manifest_json == (tiny_bundle / "manifest.json").read_text(encoding="utf-8")
    assert codec.decode_limits(info.limits) == cloud.settings.limits
    assert info.server_version


# ---- draining ------------------------------------------------------------------------------------------------------


def test_draining_ends_running_pictures_well_and_refuses_new_ones(start_cloud: StartCloud, tiny_bundle: Path) -> None:
    cloud = start_cloud(drain_s=DEADLINE_S)
    with RawClient(cloud.address, tiny_bundle) as client, RawClient(cloud.address, tiny_bundle) as late:
        alone = client.generate(sampling=GREEDY)
        late.generate(sampling=GREEDY)  # its connection stands before the draining begins
        running = client.opened(sampling=GREEDY)
        stopped = cloud.begin_stop()
        wait_until(lambda: cloud.server.admission._draining)
        for newcomer in (late, RawClient(cloud.address, tiny_bundle)):
            with pytest.raises(grpc.RpcError) as caught:
                newcomer.generate(sampling=GREEDY)
            assert caught.value.code() is UNAVAILABLE
        running.send(running.draft(alone[2:36]))
        while len(running.tokens) < 36:
            running.read()
        assert running.tokens == alone
        running.finish()
        stopped.result(DEADLINE_S)


def test_draining_cuts_what_takes_too_long(start_cloud: StartCloud, tiny_bundle: Path) -> None:
    cloud = start_cloud(drain_s=0.1)
    with RawClient(cloud.address, tiny_bundle) as client:
        running = client.opened()
        cloud.begin_stop().result(DEADLINE_S)
        assert running.error().code() in (UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert cloud.num_sessions == 0


# ---- fuzz ----------------------------------------------------------------------------------------------------------


def valid_frames(bundle_digest: str) -> list[bytes]:
    """Frames of a good picture: open with history, drafts, a fork, finish."""
    sampling = codec.encode_sampling(Sampling(seed=1, temperature=0.5, top_k=3, top_p=0.5, guidance=2))
    opening = pb.Open(
        prompt="red heart",
        sampling=sampling,
        bundle_digest=bundle_digest,
        verify=pb.VERIFY_MARKED,
        num_prefix_tokens=2,
        history=[1, 2],
    )
    return [
        pb.GenerateRequest(open=opening).SerializeToString(),
        pb.GenerateRequest(
            draft=pb.Draft(seq=1, start=2, tokens=range(10), verify_mask=b"\x55\x02")
        ).SerializeToString(),
        pb.GenerateRequest(draft=pb.Draft(seq=2, start=5, tokens=[1, 2], verify_mask=b"\x02")).SerializeToString(),
        pb.GenerateRequest(finish=pb.Finish()).SerializeToString(),
    ]


@st.composite
def mutated(draw: st.DrawFn, frame: bytes) -> bytes:
    """A frame with some bytes changed, cut, or put in."""
    data = bytearray(frame)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["change", "cut", "insert", "truncate"])):
            case "change" if data:
                data[place] = draw(st.integers(0, 255))
            case "cut":
                del data[place : place + draw(st.integers(1, 4))]
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=4))
            case "truncate":
                del data[place:]
    return bytes(data)


FORESEEN = {INVALID, PRECONDITION, EXHAUSTED, DEADLINE}


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_mutated_frames_never_kill_the_server(cloud: RunningCloud, client: RawClient, data: st.DataObject) -> None:
    """Every stream ends well or with a foreseen status: never INTERNAL, never UNKNOWN, never a hang."""
    frames = valid_frames(client.bundle_digest)
    conversation = Conversation(client.channel)
    order = data.draw(st.sampled_from([[0, 1, 2, 3], [0, 1, 3], [0, 2, 1], [1, 0], [0, 1, 1, 2, 3, 3]]))
    for index in order:
        conversation.send_bytes(data.draw(mutated(frames[index])))
    conversation.end()
    try:
        for _ in conversation.call:
            pass
    except grpc.RpcError as error:
        assert error.code() in FORESEEN, (error.code(), error.details())  # noqa: PT017
    wait_until(lambda: cloud.num_sessions == 0)


def test_the_server_of_the_fuzz_still_draws(cloud: RunningCloud, client: RawClient) -> None:
    assert_still_serves(cloud, client)
