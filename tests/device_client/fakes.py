"""Fakes that go through the seams: a cloud that answers by the real rule, and a drafter that remembers what it read."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ciar.device_client.drafter import Proposal
from ciar.device_client.gates import Scores
from ciar.shared.bundle import Manifest
from ciar.shared.errors import CiarError, ProtocolError
from ciar.shared.grid import neighbour_index
from ciar.shared.types import (
    Block,
    CloudFrame,
    Correction,
    Cost,
    DeviceFrame,
    Draft,
    Finish,
    Limits,
    Open,
    Opened,
    Sampling,
    Summary,
    Tokens,
    TreeDraft,
    Verdict,
    Written,
)
from ciar.shared.verification import Neighbours, coupled, make_rule, verify, walk

CONDITION = (1, 3, 0)


def _noise(key: bytes, size: int) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "little")
    return np.random.default_rng(seed).normal(0, 1.5, size).astype(np.float32)


class CloudModel:
    """A law of the next token that depends on every token and every feature before it."""

    def __init__(self, manifest: Manifest) -> None:
        self.num_tokens, self.vocab_size = manifest.num_tokens, manifest.vocab_size
        self.feature_dim = manifest.feature_dim

    def logits(self, tokens: Tokens, features: dict[int, NDArray[np.float16]]) -> NDArray[np.float32]:
        """tokens: (n,) those known; features by position -> (V,)"""
        seen = b"".join(features[p].tobytes() for p in sorted(features) if p < len(tokens))
        return _noise(tokens.astype(np.int64).tobytes() + seen, self.vocab_size)

    def picture(self, sampling: Sampling) -> tuple[int, ...]:
        """What the cloud draws alone."""
        tokens: list[int] = []
        for position in range(self.num_tokens):
            logits = self.logits(np.array(tokens, np.int64), {})
            tokens.append(coupled(sampling)(logits, position, -1).token)
        return tuple(tokens)


class FakeCloud:
    """A Transport. Verdicts come late by a script of delays (in polls); failures strike by a script too."""

    def __init__(
        self,
        manifest: Manifest,
        files: dict[str, bytes] | None = None,
        *,
        limits: Limits | None = None,
        write_ahead: int = 1,
        delays: Sequence[int] = (0,),
        failures: dict[int, CiarError] | None = None,
    ) -> None:
        """write_ahead: tokens in a correction. failures: number of the frame received (from 0, over all sessions) ->
        what ends the session in its place."""
        self.manifest, self.files, self.limits = manifest, files or {}, limits or Limits()
        self.model = CloudModel(manifest)
        self.neighbours = Neighbours(_noise(b"codes", 2 * manifest.vocab_size).reshape(-1, 2))
        self.write_ahead, self.delays, self.failures = write_ahead, deque(delays), dict(failures or {})
        self.num_received = 0
        self.opens: list[Open] = []
        self.drafts: list[Draft] = []
        self.trees: list[TreeDraft] = []
        self.closed = False
        self.num_fetched = 0

    def next_delay(self) -> int:
        self.delays.rotate(-1)
        return self.delays[-1]

    def model_info(self, timeout_s: float) -> tuple[str, str, Limits]:
        return self.manifest.model_dump_json(), "fake", self.limits

    def artifact(self, name: str, timeout_s: float) -> Iterator[bytes]:
        self.num_fetched += 1
        data = self.files[name]
        yield from (data[i : i + 1000] for i in range(0, len(data), 1000))

    def generate(
        self, prompt: str, sampling: Sampling, resume_tokens: Sequence[int], timeout_s: float
    ) -> Iterator[tuple[Written, int]]:
        picture = self.model.picture(sampling)
        for position in range(len(resume_tokens), len(picture)):
            self.fail_on_schedule()
            yield Written(position, (picture[position],), cost=Cost(1, 1, 1)), 5

    def collaborate(self, timeout_s: float) -> FakeSession:
        return FakeSession(self)

    def close(self) -> None:
        self.closed = True

    def fail_on_schedule(self) -> None:
        error = self.failures.pop(self.num_received, None)
        self.num_received += 1
        if error is not None:
            raise error


class FakeSession:
    """One stream: the cloud's rules, in one thread."""

    def __init__(self, cloud: FakeCloud) -> None:
        self.bytes_up = self.bytes_down = 0
        self.is_closed = False
        self._cloud = cloud
        self._replies: deque[tuple[int, CloudFrame]] = deque()
        self._error: CiarError | None = None
        self._waited = 0
        self._tokens = np.zeros(0, np.int64)
        self._features: dict[int, NDArray[np.float16]] = {}
        self._epoch = 0
        self._in_flight = 0

    def send(self, frame: DeviceFrame) -> None:
        self.bytes_up += 1
        if self._error is not None:
            return
        try:
            self._cloud.fail_on_schedule()
        except CiarError as error:
            self._error = error
            return
        match frame:
            case Open():
                self._open(frame)
            case Draft():
                self._judge(frame)
            case TreeDraft():
                self._walk(frame)
            case Finish():
                self._reply(Summary())

    def receive(self, timeout_s: float) -> CloudFrame | None:
        if not self._replies:
            if self._error is not None:
                raise self._error
            if timeout_s > 0:
                raise AssertionError("the device waits for nothing")
            return None
        delay, frame = self._replies[0]
        if timeout_s == 0 and self._waited < delay:
            self._waited += 1
            return None
        self._waited = 0
        self._replies.popleft()
        self._in_flight -= isinstance(frame, Verdict) and not frame.partial
        self.bytes_down += 1
        return frame

    def close(self) -> None:
        self.is_closed = True

    def _reply(self, frame: CloudFrame) -> None:
        self._replies.append((self._cloud.next_delay(), frame))

    def _open(self, frame: Open) -> None:
        cloud = self._cloud
        cloud.opens.append(frame)
        assert frame.file_digests == cloud.manifest.device_digests()
        self._sampling = frame.sampling
        self._acceptance = frame.acceptance
        self._carry_on = frame.carry_on
        self._append(frame.history)
        start = frame.history.end
        self._reply(Opened("s", CONDITION))
        self._write(frame.num_prefix_tokens)
        self._reply(Written(start, tuple(self._tokens[start:].tolist()), cost=Cost(1, 1, 1)))

    def _append(self, block: Block) -> None:
        assert block.start == len(self._tokens)
        assert not (block.asked & block.featured).any()
        self._tokens = np.concatenate([self._tokens, block.tokens])
        for row, offset in enumerate(np.flatnonzero(block.featured)):
            self._features[block.start + int(offset)] = block.features[row]

    def _write(self, until: int) -> None:
        while len(self._tokens) < until:
            position = len(self._tokens)
            logits = self._cloud.model.logits(self._tokens, self._features)
            own = coupled(self._sampling)(logits, position, -1).token
            self._tokens = np.append(self._tokens, own)

    def _judge(self, draft: Draft) -> None:
        cloud, block = self._cloud, draft.block
        cloud.drafts.append(draft)
        self._in_flight += 1
        assert self._in_flight <= cloud.limits.max_in_flight
        if self._carry_on:
            self._judge_and_carry_on(draft)
            return
        if draft.epoch < self._epoch:
            self._reply(Verdict(draft.epoch, 0, stale=True))
            return
        if draft.epoch != self._epoch or not block.asked[-1] or len(block.tokens) > cloud.limits.max_block_tokens:
            raise ProtocolError("draft")
        self._append(block)
        assert (block.laws is not None) == self._acceptance.needs_laws
        laws = (
            {} if block.laws is None else dict(zip(block.start + np.flatnonzero(block.asked), block.laws, strict=True))
        )
        outcome = verify(
            make_rule(self._acceptance, self._sampling, cloud.neighbours.nearest),
            lambda position: cloud.model.logits(self._tokens[:position], self._features),
            (block.start + np.flatnonzero(block.asked)).tolist(),
            lambda position: int(self._tokens[position]),
            (lambda position: laws[position].astype(np.float32)) if laws else None,
        )
        if outcome.corrected_at is None:
            self._reply(Verdict(draft.epoch, block.end, cost=Cost(1, 1, 1)))
            return
        position = outcome.corrected_at
        self._tokens = np.append(self._tokens[:position], outcome.token)
        self._features = {p: row for p, row in self._features.items() if p < position}
        self._write(min(position + cloud.write_ahead, cloud.model.num_tokens))
        self._epoch += 1
        correction = Correction(position, tuple(self._tokens[position:].tolist()), self._epoch)
        self._reply(Verdict(draft.epoch, len(self._tokens), correction, cost=Cost(1, 1, 1)))

    def _judge_and_carry_on(self, draft: Draft) -> None:
        block = draft.block
        assert block.asked[-1]
        assert not block.featured.any()
        if draft.epoch > self._epoch:
            assert draft.epoch == self._epoch + 1
            assert block.start <= len(self._tokens)
            self._tokens = self._tokens[: block.start]
            self._epoch = draft.epoch
            if self._cloud.next_delay() % 2:
                self._make_stale()
        self._append(block)
        for position in (block.start + np.flatnonzero(block.asked)).tolist():
            logits = self._cloud.model.logits(self._tokens[:position], {})
            own = coupled(self._sampling)(logits, position, -1).token
            correction = None if own == self._tokens[position] else Correction(position, (own,), self._epoch)
            self._tokens[position] = own
            partial = position + 1 < block.end
            if correction is not None or not partial:
                self._reply(Verdict(draft.epoch, position + 1, correction, cost=Cost(1, 1, 1), partial=partial))

    def _make_stale(self) -> None:
        """As if the drafts whose verdicts are still under way had not been judged yet."""
        others = [(delay, frame) for delay, frame in self._replies if not isinstance(frame, Verdict)]
        last = [(delay, frame) for delay, frame in self._replies if isinstance(frame, Verdict) and not frame.partial]
        stale = [(delay, Verdict(frame.epoch, 0, stale=True)) for delay, frame in last]
        self._replies = deque([*others, *stale])

    def _walk(self, tree: TreeDraft) -> None:
        cloud = self._cloud
        cloud.trees.append(tree)
        self._in_flight += 1
        assert self._in_flight == 1, "one tree at a time"
        assert (tree.epoch, tree.start) == (self._epoch, len(self._tokens))
        assert 0 < len(tree.tokens) <= min(cloud.limits.max_block_tokens, cloud.model.num_tokens - tree.start)

        def logits_at(node: int) -> NDArray[np.float32]:
            path: list[int] = []
            while node >= 0:
                path.insert(0, int(tree.tokens[node]))
                node = int(tree.parents[node])
            return cloud.model.logits(np.append(self._tokens, np.array(path, np.int64)), self._features)

        found = walk(coupled(self._sampling), logits_at, tree, cloud.model.num_tokens)
        self._tokens = np.append(self._tokens, found.tokens)
        self._epoch += 1
        correction = Correction(tree.start, found.tokens, self._epoch)
        self._reply(Verdict(tree.epoch, len(self._tokens), correction, cost=Cost(1, 1, 1)))


class FakeDrafter:
    """A `Drafts` whose rows chain like a cache: a row that was not written again after a rollback changes everything.

    agreement: share of the positions at which it knows the cloud's law for a history without features.
    """

    def __init__(self, manifest: Manifest, agreement: float = 0.5) -> None:
        self._model = CloudModel(manifest)
        self._agreement = agreement
        self._index = neighbour_index(manifest.grid_height, manifest.grid_width)
        self._rows: list[bytes] = [b""] * manifest.num_tokens
        self.num_steps = 0

    def reset(self, condition: Sequence[int]) -> None:
        assert tuple(condition) == CONDITION
        self._rows = [b""] * len(self._rows)

    def read(self, tokens: Tokens, start: int, end: int) -> None:
        for position in range(start, end):
            around = [int(tokens[i]) if i < len(tokens) else -1 for i in self._index[position]]
            before = self._rows[position - 1] if position else b""
            self._rows[position] = hashlib.sha256(before + repr((position, around)).encode()).digest()

    def step(self, tokens: Tokens, position: int) -> Proposal:
        self.num_steps += 1
        self.read(tokens, position, position + 1)
        row = self._rows[position]
        knows = row[0] < 256 * self._agreement
        model = self._model
        center = model.logits(tokens[:position], {}) if knows else _noise(row, model.vocab_size)
        ambiguity, disparity = row[1] / 128, row[2] / 256
        feature = _noise(row + b"f", model.feature_dim)
        return Proposal(center, Scores(ambiguity, disparity, ambiguity * disparity), feature)
