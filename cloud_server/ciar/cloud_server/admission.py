"""Admission: a request is checked against the bundle and the limits before it costs anything.

In: a decoded request. Out: an Admitted, or an error that names the field. Also counts the slots.
"""

from __future__ import annotations

import secrets
from collections import deque

from ciar.cloud_server.session import Admitted
from ciar.shared.bundle import Manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import Busy, InvalidRequest, PairMismatch, Unavailable
from ciar.shared.types import Draft, Limits, Open, Tokens


class Admission:
    """Checks requests and hands out slots; used by the event loop alone."""

    def __init__(
        self,
        manifest: Manifest,
        captions: CaptionVocabulary,
        limits: Limits,
        *,
        bundle_digest: str,
        max_sessions: int,
        retry_after_ms: int,
    ) -> None:
        self._manifest, self._captions, self._limits = manifest, captions, limits
        self._max_sessions, self._retry_after_ms = max_sessions, retry_after_ms
        self._bundle_digest = bundle_digest
        self._free_slots = deque(range(max_sessions))
        self._draining = False

    def admit(self, request: Open) -> Admitted:
        """Check the first frame of a picture. Raises InvalidRequest, PairMismatch."""
        manifest, history = self._manifest, request.history
        if request.bundle_digest != self._bundle_digest:
            raise PairMismatch(
                f"open.bundle_digest: {request.bundle_digest[:12] or 'none'}…; this server serves {manifest.name} "
                f"{manifest.version} ({self._bundle_digest[:12]}…); ask for its manifest and files again"
            )
        if request.num_prefix_tokens > manifest.num_tokens:
            raise InvalidRequest(
                f"open.num_prefix_tokens: {request.num_prefix_tokens}; the picture has {manifest.num_tokens} tokens"
            )
        self._check_tokens(history, "open.history")
        return Admitted(
            session_id=secrets.token_hex(8),
            condition=self._encode(request.prompt),
            sampling=request.sampling,
            verify=request.verify,
            num_prefix_tokens=request.num_prefix_tokens,
            max_window=min(request.max_window or self._limits.max_window, self._limits.max_window),
            history=history,
        )

    def check_draft(self, draft: Draft) -> None:
        """Raises InvalidRequest for a token outside the vocabulary, or too many."""
        self._check_tokens(draft.tokens, "draft.tokens")

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
