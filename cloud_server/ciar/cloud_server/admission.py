"""Admission: a request is checked against the bundle and the limits before it costs anything.

In: a decoded request. Out: an Admitted, or an error that names the field. Also counts the slots.
"""

from __future__ import annotations

import secrets
from collections import deque

import numpy as np

from ciar.cloud_server.session import Admitted
from ciar.shared.bundle import Manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import Busy, InvalidRequest, PairMismatch, Unavailable
from ciar.shared.types import COUPLED, Acceptance, Block, Lantern, Limits, Open, Sampling, Tokens, TreeDraft


class Admission:
    """Checks requests and hands out slots; used by the event loop alone."""

    def __init__(
        self,
        manifest: Manifest,
        captions: CaptionVocabulary,
        limits: Limits,
        *,
        max_sessions: int,
        retry_after_ms: int,
    ) -> None:
        self._manifest, self._captions, self._limits = manifest, captions, limits
        self._max_sessions, self._retry_after_ms = max_sessions, retry_after_ms
        self._free_slots = deque(range(max_sessions))
        self._draining = False

    def admit_open(self, request: Open) -> Admitted:
        """Check the first frame of a collaboration. Raises InvalidRequest, PairMismatch."""
        manifest = self._manifest
        self._check_digests(request.file_digests)
        if request.num_prefix_tokens > manifest.num_tokens:
            raise InvalidRequest(
                f"open.num_prefix_tokens: {request.num_prefix_tokens}; the picture has {manifest.num_tokens} tokens"
            )
        history = request.history
        if history.start or history.asked.any():
            raise InvalidRequest("open.history: starts at 0 and asks about nothing")
        self._check_tokens(history.tokens, "open.history.tokens")
        self._check_acceptance(request.acceptance)
        if request.carry_on:
            _check_carry_on(request)
        return Admitted(
            session_id=_new_session_id(),
            condition=self._encode(request.prompt),
            sampling=request.sampling,
            history=history,
            write_until=request.num_prefix_tokens,
            chunk=manifest.num_tokens,
            collaborative=True,
            acceptance=request.acceptance,
            carry_on=request.carry_on,
        )

    def admit_generate(self, prompt: str, sampling: Sampling, resume_tokens: Tokens) -> Admitted:
        """Check a request for a cloud-only picture; it is answered row by row. Raises InvalidRequest."""
        manifest = self._manifest
        self._check_tokens(resume_tokens, "resume_tokens")
        nothing = np.zeros(len(resume_tokens), np.bool_)
        no_features = np.zeros((0, manifest.feature_dim), np.float16)
        return Admitted(
            session_id=_new_session_id(),
            condition=self._encode(prompt),
            sampling=sampling,
            history=Block(0, resume_tokens, nothing, nothing, no_features),
            write_until=manifest.num_tokens,
            chunk=manifest.grid_width,
            collaborative=False,
        )

    def check_draft(self, block: Block) -> None:
        """Raises InvalidRequest for a token outside the vocabulary, or laws that are not over it."""
        self._check_tokens(block.tokens, "draft.block.tokens")
        vocab_size = self._manifest.vocab_size
        if block.laws is not None and block.laws.shape[1] != vocab_size:
            raise InvalidRequest(
                f"draft.block.laws: {block.laws.shape[1]} values for an asked token; the vocabulary has {vocab_size}"
            )

    def check_tree(self, tree: TreeDraft) -> None:
        """Raises InvalidRequest for a token outside the vocabulary."""
        self._check_tokens(tree.tokens, "tree.tokens")

    def acquire_slot(self) -> int:
        """A free KV slot. Raises Busy with a retry hint when there is none, Unavailable when draining."""
        if self._draining:
            raise Unavailable("the server is shutting down; try another, or again later")
        if not self._free_slots:
            raise Busy(f"all {self._max_sessions} sessions are taken; try again later", self._retry_after_ms)
        return self._free_slots.popleft()

    def release_slot(self, slot: int) -> None:
        self._free_slots.append(slot)

    def drain(self) -> None:
        """Admit nobody from now on."""
        self._draining = True

    @property
    def num_sessions(self) -> int:
        """Slots in use."""
        return self._max_sessions - len(self._free_slots)

    def _encode(self, prompt: str) -> Tokens:
        if len(prompt.encode()) > self._limits.max_prompt_bytes:
            raise InvalidRequest(
                f"prompt: {len(prompt.encode())} bytes; at most {self._limits.max_prompt_bytes} are allowed"
            )
        return self._captions.encode(prompt)

    def _check_tokens(self, tokens: Tokens, name: str) -> None:
        manifest = self._manifest
        if len(tokens) > manifest.num_tokens:
            raise InvalidRequest(f"{name}: {len(tokens)} tokens; the picture has {manifest.num_tokens}")
        if len(tokens) and tokens.max() >= manifest.vocab_size:
            raise InvalidRequest(f"{name}: token {tokens.max()} is outside the vocabulary of {manifest.vocab_size}")

    def _check_acceptance(self, acceptance: Acceptance) -> None:
        most = self._manifest.vocab_size - 1
        if isinstance(acceptance, Lantern) and acceptance.num_neighbours > most:
            raise InvalidRequest(
                f"open.acceptance.lantern.num_neighbours: {acceptance.num_neighbours}; a token has {most} neighbours"
            )

    def _check_digests(self, digests: dict[str, str]) -> None:
        expected = self._manifest.device_digests()
        differing = sorted(name for name in expected.keys() | digests.keys() if digests.get(name) != expected.get(name))
        if differing:
            raise PairMismatch(
                f"open.file_digests: {', '.join(differing)} differ from bundle {self._manifest.name} "
                f"{self._manifest.version}; fetch the device's files from this server again"
            )


def _check_carry_on(request: Open) -> None:
    """What a correction leaves as it was must not depend on what was drafted, nor on features of it."""
    if request.acceptance != COUPLED:
        raise InvalidRequest(f"open.carry_on: the rule {request.acceptance} depends on drafts; leave one of them out")
    if request.history.featured.any():
        raise InvalidRequest("open.history.featured_mask: a session that carries on takes no features; send none")


def _new_session_id() -> str:
    return secrets.token_hex(8)
