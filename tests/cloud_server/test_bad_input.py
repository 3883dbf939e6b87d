"""Whatever a client sends gets its status and a sentence that names the field, and harms nobody else.

Over real gRPC, with a client that has no manners. After each bad input the same server must still draw a right picture.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciar.shared import codec
from ciar.shared.types import Acceptance, Block, Classic, Coupled, Finish, Lantern, Sampling, Verdict
from ciar.v1 import service_pb2 as pb
from tests.support.raw_client import DEADLINE_S, Conversation, RawClient, ask_all
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
        verdict = conversation.read()
        assert isinstance(verdict, Verdict)
        assert verdict.correction is None
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
    "wrong digest": (
        {"file_digests": {"drafter.onnx": "0" * 64, "decoder.onnx": "0" * 64}},
        PRECONDITION,
        "open.file_digests: decoder.onnx, drafter.onnx differ from bundle tiny 0",
    ),
    "no digests": ({"file_digests": {}}, PRECONDITION, "open.file_digests: decoder.onnx, drafter.onnx"),
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
    "more neighbours than tokens": (
        {"acceptance": Lantern(64, 0.1)},
        INVALID,
        "open.acceptance.lantern.num_neighbours: 64; a token has 63",
    ),
    "carrying on with a rule that looks at drafts": (
        {"acceptance": Classic(), "carry_on": True},
        INVALID,
        "open.carry_on: the rule classic depends on drafts",
    ),
    "more mass than there is": ({"acceptance": Lantern(1, 1.5)}, INVALID, "open.acceptance.lantern.max_mass: must be"),
}


@pytest.mark.parametrize("case", BAD_OPENS)
def test_bad_open(cloud: RunningCloud, client: RawClient, case: str) -> None:
    fields, code, sentence = BAD_OPENS[case]
    conversation = client.collaborate()
    conversation.send(client.open_frame(**fields))  # type: ignore[arg-type]
    assert_refused(conversation.error(), code, sentence)
    assert_still_serves(cloud, client)


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        (pb.Block(start=1, tokens=[1]), "open.history: starts at 0 and asks about nothing"),
        (pb.Block(tokens=[1], asked_mask=b"\x01"), "open.history: starts at 0 and asks about nothing"),
        (pb.Block(tokens=[64]), "open.history.tokens: token 64 is outside the vocabulary of 64"),
        (pb.Block(tokens=[1] * 37), "open.history.tokens: 37 tokens; the picture has 36"),
        (pb.Block(tokens=[1], featured_mask=b"\x01"), "open.history.features: 0 bytes; 1 featured"),
    ],
)
def test_bad_history(cloud: RunningCloud, client: RawClient, block: pb.Block, sentence: str) -> None:
    conversation = client.collaborate()
    message = codec.encode_device_frame(client.open_frame())
    message.open.history.CopyFrom(block)
    conversation.send(message)
    assert_refused(conversation.error(), INVALID, sentence)
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
    conversation = client.collaborate()
    conversation.send(message)
    assert_refused(conversation.error(), INVALID, f"sampling.{field}: ")
    with pytest.raises(grpc.RpcError) as caught:
        list(
            client.stub.Generate(pb.GenerateRequest(prompt="heart", sampling=message.open.sampling), timeout=DEADLINE_S)
        )
    assert_refused(caught.value, INVALID, f"sampling.{field}: ")
    assert_still_serves(cloud, client)


def test_draft_before_open(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.collaborate()
    conversation.send(conversation.draft([1]))
    assert_refused(conversation.error(), PRECONDITION, "frame: a session begins with open")
    assert_still_serves(cloud, client)


def test_finish_before_open(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.collaborate()
    conversation.send(Finish())
    assert_refused(conversation.error(), PRECONDITION, "frame: a session begins with open")
    assert_still_serves(cloud, client)


def test_stream_ended_before_open(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.collaborate()
    conversation.end()
    assert_refused(conversation.error(), PRECONDITION, "frame: the stream ended")
    assert_still_serves(cloud, client)


def test_empty_first_frame(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.collaborate()
    conversation.send(pb.CollaborateRequest())
    assert_refused(conversation.error(), INVALID, "frame: empty; send open, draft, tree or finish")
    assert_still_serves(cloud, client)


# ---- later frames --------------------------------------------------------------------------------------------------

BAD_DRAFTS: dict[str, tuple[pb.Draft, grpc.StatusCode, str]] = {
    "token out of range": (
        pb.Draft(block=pb.Block(start=2, tokens=[5, 64], asked_mask=b"\x02")),
        INVALID,
        "draft.block.tokens: token 64 is outside the vocabulary of 64",
    ),
    "huge token": (
        pb.Draft(block=pb.Block(start=2, tokens=[2**32 - 1], asked_mask=b"\x01")),
        INVALID,
        "draft.block.tokens: token 4294967295",
    ),
    "gap": (
        pb.Draft(block=pb.Block(start=3, tokens=[1], asked_mask=b"\x01")),
        INVALID,
        "draft.block.start: 3, but the next token of this epoch is 2",
    ),
    "overlap": (
        pb.Draft(block=pb.Block(start=1, tokens=[1], asked_mask=b"\x01")),
        INVALID,
        "draft.block.start: 1, but the next token",
    ),
    "huge start": (
        pb.Draft(block=pb.Block(start=2**32 - 1, tokens=[1], asked_mask=b"\x01")),
        INVALID,
        "draft.block.start: 4294967295",
    ),
    "future epoch": (
        pb.Draft(epoch=1, block=pb.Block(start=2, tokens=[1], asked_mask=b"\x01")),
        PRECONDITION,
        "draft.epoch: 1 has not begun; the session is in epoch 0",
    ),
    "last token not asked": (
        pb.Draft(block=pb.Block(start=2, tokens=[1, 2], asked_mask=b"\x01")),
        INVALID,
        "draft.block.asked_mask: the last token",
    ),
    "nothing asked": (
        pb.Draft(block=pb.Block(start=2, tokens=[1, 2])),
        INVALID,
        "draft.block.asked_mask: the last token",
    ),
    "empty block": (pb.Draft(block=pb.Block(start=2)), INVALID, "draft.block.tokens: 0 tokens; send 1 to"),
    "no block": (pb.Draft(), INVALID, "draft.block.start: 0"),
    "past the end": (
        pb.Draft(block=pb.Block(start=2, tokens=[1] * 35, asked_mask=b"\x00\x00\x00\x00\x04")),
        INVALID,
        "draft.block.tokens: they end at 37, past the picture's 36",
    ),
    "NaN features": (
        pb.Draft(
            block=pb.Block(
                start=2,
                tokens=[1, 2],
                asked_mask=b"\x02",
                featured_mask=b"\x01",
                features=np.array([0, np.nan, 0, 0], "<f2").tobytes(),
            )
        ),
        INVALID,
        "draft.block.features: NaN or infinity",
    ),
    "features of wrong length": (
        pb.Draft(block=pb.Block(start=2, tokens=[1, 2], asked_mask=b"\x02", featured_mask=b"\x01", features=b"\0" * 6)),
        INVALID,
        "draft.block.features: 6 bytes; 1 featured tokens of 4 float16 need 8",
    ),
    "features without mask": (
        pb.Draft(block=pb.Block(start=2, tokens=[1], asked_mask=b"\x01", features=b"\0" * 8)),
        INVALID,
        "draft.block.features: 8 bytes",
    ),
    "asked and featured": (
        pb.Draft(block=pb.Block(start=2, tokens=[1], asked_mask=b"\x01", featured_mask=b"\x01", features=b"\0" * 8)),
        INVALID,
        "draft.block.featured_mask: a token that is asked about has no feature",
    ),
    "mask too long": (
        pb.Draft(block=pb.Block(start=2, tokens=[1], asked_mask=b"\x01\x00")),
        INVALID,
        "draft.block.asked_mask: 2 bytes for 1 tokens",
    ),
    "bits past the end": (
        pb.Draft(block=pb.Block(start=2, tokens=[1], asked_mask=b"\x03")),
        INVALID,
        "draft.block.asked_mask: bits set past the last token",
    ),
}


@pytest.mark.parametrize("case", BAD_DRAFTS)
def test_bad_draft(cloud: RunningCloud, client: RawClient, case: str) -> None:
    draft, code, sentence = BAD_DRAFTS[case]
    conversation = client.opened()
    conversation.send(pb.CollaborateRequest(draft=draft))
    assert_refused(conversation.error(), code, sentence)
    assert_still_serves(cloud, client)


BAD_LAWS: dict[str, tuple[Acceptance, pb.Block, str]] = {
    "laws for a rule without": (
        Coupled(),
        pb.Block(start=2, tokens=[1], asked_mask=b"\x01", laws=bytes(128)),
        "draft.block.laws: the rule coupled needs none",
    ),
    "no laws": (
        Classic(),
        pb.Block(start=2, tokens=[1], asked_mask=b"\x01"),
        "draft.block.laws: the rule classic needs the law of every asked token",
    ),
    "laws of another vocabulary": (
        Lantern(3, 0.1),
        pb.Block(start=2, tokens=[1], asked_mask=b"\x01", laws=bytes(126)),
        "draft.block.laws: 63 values for an asked token; the vocabulary has 64",
    ),
    "a law too few": (
        Classic(),
        pb.Block(start=2, tokens=[1, 2], asked_mask=b"\x03", laws=bytes(128)),
        "draft.block.laws: 32 values for an asked token",
    ),
    "NaN": (
        Classic(),
        pb.Block(start=2, tokens=[1], asked_mask=b"\x01", laws=np.full(64, np.nan, "<f2").tobytes()),
        "draft.block.laws: NaN or infinity",
    ),
}


@pytest.mark.parametrize("case", BAD_LAWS)
def test_bad_laws(cloud: RunningCloud, client: RawClient, case: str) -> None:
    acceptance, block, sentence = BAD_LAWS[case]
    conversation = client.opened(acceptance=acceptance)
    conversation.send(pb.CollaborateRequest(draft=pb.Draft(block=block)))
    assert_refused(conversation.error(), INVALID, sentence)
    assert_still_serves(cloud, client)


@pytest.mark.parametrize("logit", [-65504.0, 0.0, 65504.0])
def test_the_strangest_law_is_judged(cloud: RunningCloud, client: RawClient, logit: float) -> None:
    """A device may lie about its law; what it gets is a verdict."""
    law = np.full(64, -65504.0, np.float16)
    law[5] = logit
    conversation = client.opened(acceptance=Classic())
    draft = conversation.draft([5])
    conversation.send(replace(draft, block=replace(draft.block, laws=law[None])))
    assert isinstance(conversation.read(), Verdict)
    assert conversation.finish().num_asked == 1
    assert_still_serves(cloud, client)


BAD_TREES: dict[str, tuple[pb.TreeDraft, grpc.StatusCode, str]] = {
    "token out of range": (
        pb.TreeDraft(start=2, tokens=[5, 64], parents=[0, 1]),
        INVALID,
        "tree.tokens: token 64 is outside the vocabulary of 64",
    ),
    "gap": (pb.TreeDraft(start=3, tokens=[1], parents=[0]), INVALID, "tree.start: 3, but the next token"),
    "empty": (pb.TreeDraft(start=2), INVALID, "tree.tokens: 0 nodes; send 1 to"),
    "more nodes than room": (
        pb.TreeDraft(start=2, tokens=range(35), parents=[0] * 35),
        INVALID,
        "tree.tokens: 35 nodes; send 1 to 34",
    ),
    "future epoch": (
        pb.TreeDraft(epoch=1, start=2, tokens=[1], parents=[0]),
        PRECONDITION,
        "tree.epoch: 1 has not begun",
    ),
    "parent behind its child": (
        pb.TreeDraft(start=2, tokens=[1, 2], parents=[2, 0]),
        INVALID,
        "tree.parents: that of node 0 does not come before it",
    ),
    "orphan": (pb.TreeDraft(start=2, tokens=[1]), INVALID, "tree.parents: 0 for 1 tokens"),
    "twins": (pb.TreeDraft(start=2, tokens=[1, 1], parents=[0, 0]), INVALID, "tree.tokens: two siblings"),
}


@pytest.mark.parametrize("case", BAD_TREES)
def test_bad_tree(cloud: RunningCloud, client: RawClient, case: str) -> None:
    tree, code, sentence = BAD_TREES[case]
    conversation = client.opened()
    conversation.send(pb.CollaborateRequest(tree=tree))
    assert_refused(conversation.error(), code, sentence)
    assert_still_serves(cloud, client)


def test_a_bad_draft_harms_no_session_beside_it(cloud: RunningCloud, client: RawClient) -> None:
    alone = client.generate(sampling=GREEDY)
    good, bad = client.opened(sampling=GREEDY), client.opened(sampling=GREEDY)
    good.send(good.draft(alone[2:10]))
    bad.send(pb.CollaborateRequest(draft=BAD_DRAFTS["gap"][0]))
    assert_refused(bad.error(), INVALID, "draft.block.start")
    good.read()
    good.send(good.draft(alone[10:36]))
    good.read()
    assert good.tokens == alone
    assert good.finish().num_drafts == 2


def test_second_open(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.opened()
    conversation.send(client.open_frame())
    assert_refused(conversation.error(), PRECONDITION, "frame: a second open")
    assert_still_serves(cloud, client)


def test_empty_frame(cloud: RunningCloud, client: RawClient) -> None:
    conversation = client.opened()
    conversation.send(pb.CollaborateRequest())
    assert_refused(conversation.error(), INVALID, "frame: empty; send open, draft, tree or finish")
    assert_still_serves(cloud, client)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x0a\x7f", b"\x0a\x04\x0a\x02\xff\xfe"])
@pytest.mark.parametrize("opened", [False, True])
def test_bytes_that_are_no_message(cloud: RunningCloud, client: RawClient, data: bytes, opened: bool) -> None:
    """The last one is an open whose prompt is not UTF-8."""
    conversation = client.opened() if opened else client.collaborate()
    conversation.send_bytes(data)
    assert_refused(conversation.error(), INVALID, "frame: not a message of this contract")
    assert_still_serves(cloud, client)


@pytest.mark.parametrize(
    "after", [Finish(), pb.CollaborateRequest(), pb.CollaborateRequest(draft=BAD_DRAFTS["gap"][0])]
)
def test_frames_after_finish(cloud: RunningCloud, client: RawClient, after: Finish | pb.CollaborateRequest) -> None:
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


def test_finish_right_behind_a_draft_still_gets_the_verdict(cloud: RunningCloud, client: RawClient) -> None:
    alone = client.generate(sampling=GREEDY)
    conversation = client.opened(sampling=GREEDY)
    engine = cloud.server._engine
    release = hold(engine)
    conversation.send(conversation.draft(alone[2:20]))
    conversation.send(conversation.draft(alone[20:36], start=20))
    conversation.send(Finish())
    conversation.end()
    wait_until(lambda: engine._inbox.qsize() >= 3)
    release()
    assert isinstance(conversation.read(), Verdict)
    assert isinstance(conversation.read(), Verdict)
    assert conversation.tokens == alone
    assert conversation.read().num_drafts == 2  # type: ignore[union-attr]
    with pytest.raises(StopIteration):
        conversation.read()


def test_a_stale_epoch_is_answered_not_refused(cloud: RunningCloud, client: RawClient) -> None:
    alone = client.generate(sampling=GREEDY)
    conversation = client.opened(sampling=GREEDY)
    wrong = (alone[2] + 1) % 64
    conversation.send(conversation.draft([wrong, 0, 0]))
    conversation.send(conversation.draft([7, 7], start=5))
    first, second = conversation.read(), conversation.read()
    assert isinstance(first, Verdict)
    assert first.correction is not None
    assert (first.correction.position, first.correction.tokens) == (2, (alone[2],))
    assert isinstance(second, Verdict)
    assert (second.stale, second.epoch, second.correction) == (True, 0, None)
    assert second.verified_through == 3
    conversation.send(conversation.draft([1, 2, 3], start=30, epoch=0))  # its start does not matter any more
    late = conversation.read()
    assert isinstance(late, Verdict)
    assert late.stale
    conversation.send(conversation.draft(alone[3:36]))
    conversation.read()
    assert conversation.tokens == alone
    summary = conversation.finish()
    assert (summary.num_drafts, summary.num_stale_drafts, summary.num_corrections) == (4, 2, 1)
    assert summary.num_asked == 3 + 33


# ---- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cloud", [{"max_block_tokens": 4, "max_message_bytes": 4096}], indirect=True)
class TestSizes:
    def test_block_too_long(self, cloud: RunningCloud, client: RawClient) -> None:
        conversation = client.opened()
        conversation.send(conversation.draft([1] * 5))
        assert_refused(conversation.error(), INVALID, "draft.block.tokens: 5 tokens; send 1 to 4")
        again = client.opened()
        again.send(again.draft([1] * 4))
        assert isinstance(again.read(), Verdict)
        again.finish()

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
        engine = cloud.server._engine
        release = hold(engine)
        try:
            for start in (2, 3, 4):
                conversation.send(conversation.draft([1], start=start))
            wait_until(lambda: engine._inbox.qsize() >= 3)
        finally:
            release()
        assert_refused(conversation.error(), PRECONDITION, "draft: more than 2 unanswered drafts")
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
        third = client.collaborate()
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
        bad = client.collaborate()
        bad.send(client.open_frame(prompt="nonsense"))
        assert_refused(bad.error(), INVALID, "prompt: unknown word")  # not RESOURCE_EXHAUSTED: it can never be served
        held.finish()
        assert_still_serves(cloud, client)


def test_silence_ends_a_session(start_cloud: StartCloud, tiny_bundle: Path) -> None:
    cloud = start_cloud(idle_timeout_s=0.2)
    with RawClient(cloud.address, tiny_bundle) as client:
        assert_refused(client.opened().error(), DEADLINE, "no frame for 0.2 s")
        assert_refused(client.collaborate().error(), DEADLINE, "no frame for 0.2 s")
        finished = client.opened()
        finished.send(Finish())  # and never ends its side of the stream
        assert_refused(finished.error(), DEADLINE, "no frame for 0.2 s")
        assert_still_serves(cloud, client)


def test_waiting_for_the_cloud_is_not_silence(start_cloud: StartCloud, tiny_bundle: Path) -> None:
    cloud = start_cloud(idle_timeout_s=0.2)
    with RawClient(cloud.address, tiny_bundle) as client:
        conversation = client.opened()
        release = hold(cloud.server._engine)
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
        parts = client.stub.Generate(
            pb.GenerateRequest(prompt="heart", sampling=codec.encode_sampling(Sampling())), timeout=DEADLINE_S
        )
        next(parts)
        parts.cancel()
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


@pytest.mark.parametrize(
    ("prompt", "resume_tokens", "sentence"),
    [
        ("", [], "prompt: no known word"),
        ("red haert", [], "prompt: unknown word 'haert'"),
        ("heart " * 500, [], "prompt: 3000 bytes"),
        ("heart", [64], "resume_tokens: token 64 is outside"),
        ("heart", [1] * 37, "resume_tokens: 37 tokens"),
    ],
)
def test_bad_generate(
    cloud: RunningCloud, client: RawClient, prompt: str, resume_tokens: list[int], sentence: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.generate(prompt, resume_tokens=resume_tokens)
    assert_refused(caught.value, INVALID, sentence)
    assert_still_serves(cloud, client)


def test_resuming_a_whole_picture_adds_nothing(client: RawClient) -> None:
    assert client.generate(resume_tokens=[1] * 36) == []


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


def valid_frames() -> list[bytes]:
    """Frames of a good session: open with history, drafts with features, finish; a tree in place of drafts."""
    sampling = codec.encode_sampling(Sampling(seed=1, temperature=0.5, top_k=3, top_p=0.5, guidance=2))
    history = pb.Block(tokens=[1, 2], featured_mask=b"\x02", features=bytes(8))
    draft = Block(
        4,
        np.arange(10),
        np.arange(10) % 3 == 0,
        np.arange(10) % 3 == 1,
        np.ones((3, 4), np.float16),
    )
    return [
        pb.CollaborateRequest(
            open=pb.Open(prompt="red heart", sampling=sampling, num_prefix_tokens=4, history=history)
        ).SerializeToString(),
        pb.CollaborateRequest(draft=pb.Draft(block=codec.encode_block(draft))).SerializeToString(),
        pb.CollaborateRequest(draft=pb.Draft(block=codec.encode_block(ask_all([1], 14, 4)))).SerializeToString(),
        pb.CollaborateRequest(finish=pb.Finish()).SerializeToString(),
        pb.CollaborateRequest(
            tree=pb.TreeDraft(start=4, tokens=[1, 2, 3, 1], parents=[0, 0, 2, 3])
        ).SerializeToString(),
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
    frames = valid_frames()
    opening = pb.CollaborateRequest.FromString(frames[0])
    opening.open.file_digests.update(client.manifest.device_digests())
    frames[0] = opening.SerializeToString()
    conversation = Conversation(client.channel, client.manifest.feature_dim)
    order = data.draw(
        st.sampled_from([[0, 1, 2, 3], [0, 1, 3], [0, 2, 1], [1, 0], [0, 1, 1, 2, 3, 3], [0, 4, 3], [0, 4, 1, 3]])
    )
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
