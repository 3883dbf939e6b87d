"""The SDK: a client of one cloud, which generates pictures together with it.

In: a prompt and settings. Out: a `Result`. The client owns the channel, the cached files and the loaded graphs; how a
picture is generated is the loop's.
"""

from __future__ import annotations

import difflib
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, Self

from PIL import Image
from pydantic import ValidationError

from ciar.device_client.artifacts import ArtifactCache, default_cache
from ciar.device_client.decoder import NAME as DECODER
from ciar.device_client.decoder import Decoder
from ciar.device_client.decoding import Account, Decoding, Request, set_committed
from ciar.device_client.drafter import NAME as DRAFTER
from ciar.device_client.drafter import Drafter, Drafts
from ciar.device_client.gates import Gate, VerifyAll, VerifyNone, make_gate
from ciar.device_client.result import Mode, Result, Timings, Traffic
from ciar.device_client.token_buffer import TokenBuffer
from ciar.device_client.transport import GrpcTransport, Transport
from ciar.device_client.waiting import Deadline, RetryPolicy
from ciar.shared.bundle import Manifest, digest_of, parse_manifest
from ciar.shared.codec import sampling_error
from ciar.shared.errors import CiarError, InvalidRequest, PairMismatch, ProtocolError, TimedOut
from ciar.shared.types import Limits, Sampling, Verify

DEFAULT_MAX_AHEAD = 24
_VERIFYING_ALL = (Mode.CLOUD, Mode.LOSSLESS)
MAX_TIMEOUT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a picture has come."""

    num_committed: int
    """Tokens that are final."""
    num_tokens: int
    preview: Callable[[], Image.Image]
    """The picture so far; tokens that are not final repeat the last one. Call it before returning."""


class Info(NamedTuple):
    """What a server says of itself."""

    manifest: Manifest
    limits: Limits
    server_version: str
    bundle_digest: str


@dataclass(frozen=True, slots=True)
class _Pair:
    """The device's side of a bundle, loaded."""

    drafter: Drafts
    decoder: Decoder


class Client:
    """Generates pictures with a cloud. A context manager.

    May be shared between threads, but generates one picture at a time (drafter and decoder have one state): others wait
    their turn, within their own `timeout_s`. For pictures in parallel use one client each.
    """

    def __init__(
        self,
        address: str = "",
        *,
        transport: Transport | None = None,
        cache_dir: Path | str | None = None,
        connect_timeout_s: float = 5.0,
        retry: RetryPolicy | None = None,
    ) -> None:
        """address: HOST:PORT of a server, or give a `transport`. Nothing is sent before the first use.

        cache_dir: where the device's files are kept (default $CIAR_CACHE or ~/.cache/ciar).
        """
        if transport is None and not address:
            raise InvalidRequest("address: give HOST:PORT of a server, or a transport")
        _require_timeout("connect_timeout_s", connect_timeout_s)
        self._transport = transport or GrpcTransport(address)
        self._cache = ArtifactCache(Path(cache_dir) if cache_dir else default_cache())
        self._connect_timeout_s = connect_timeout_s
        self._retry = retry or RetryPolicy()
        self._lock = threading.Lock()
        self._known_info: Info | None = None
        self._known_pair: _Pair | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a picture in the making fails with Unavailable."""
        self._transport.close()

    def info(self) -> Info:
        """The server's model and limits, asked once. Raises Unavailable if nothing answers."""
        if self._known_info is None:
            text, version, limits = self._transport.model_info(self._connect_timeout_s)
            try:
                manifest = parse_manifest(text, "the server's manifest")
            except InvalidRequest as exc:
                raise ProtocolError(str(exc)) from exc
            self._known_info = Info(manifest, limits, version, digest_of(text))
        return self._known_info

    def generate(
        self,
        prompt: str,
        *,
        seed: int = 0,
        mode: Mode | str = Mode.CIAR,
        gate: Gate | str | None = None,
        max_window: int = 0,
        max_ahead: int = DEFAULT_MAX_AHEAD,
        guidance: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        prefix_rate: float | None = None,
        timeout_s: float = 60.0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Result:
        """Generate one picture.

        seed: in [0, 2⁶⁴); with the same settings it gives the same picture, whatever the network does.
        mode: who decides (see `Mode`). gate: for mode "ciar", as `make_gate` reads it, or your own (it has a state: one
        for each thread).
        max_window: most positions that the cloud verifies in one pass; 0 leaves it to the server, 1 is one pass a
        token. max_ahead: most tokens drafted past the final ones. Both change the time and not the picture.
        guidance, temperature, top_k, top_p, prefix_rate (ρ, share of tokens that the cloud generates first, in the
        modes "ciar" and "device"): by default the pair's measured settings.
        timeout_s: for the whole picture, waiting for other threads' pictures included.

        Raises InvalidRequest (names the value), Busy, TimedOut, Unavailable, PairMismatch, ProtocolError; what was
        final by then is in the error's `committed`.
        """
        began = perf_counter()
        _require_timeout("timeout_s", timeout_s)
        chosen = _parse_mode(mode)
        deadline = Deadline(timeout_s)
        with self._turn(deadline):
            info = self.info()
            manifest = info.manifest
            sampling = _sampling(
                manifest, seed=seed, guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p
            )
            verify = Verify.ALL if chosen in _VERIFYING_ALL else Verify.MARKED
            request = Request(
                prompt,
                sampling,
                info.bundle_digest,
                verify,
                0 if verify is Verify.ALL else _num_prefix_tokens(prefix_rate, manifest),
                max_window=_require_count("max_window", max_window, least=0),
                max_ahead=_require_count("max_ahead", max_ahead, least=1),
                vocab_size=manifest.vocab_size,
                alone=chosen is Mode.DEVICE,
            )
            chosen_gate = _gate(chosen, gate, manifest)
            pair = self._pair(manifest, deadline)
            ready = perf_counter()
            buffer, account = self._decode(request, chosen, chosen_gate, pair, deadline, on_progress)
            decoding = perf_counter()
            image = pair.decoder(buffer.tokens)
            ended = perf_counter()
        timings = Timings(
            total_s=ended - began,
            setup_s=ready - began,
            prefix_s=account.prefix_s,
            waiting_s=account.waiting_s,
            drafting_s=account.drafting_s,
            decoding_s=ended - decoding,
        )
        gate_name = "none" if chosen is Mode.CLOUD else chosen_gate.name
        return _result(image, buffer, account, timings, manifest, sampling.seed, chosen, gate_name)

    def _decode(
        self,
        request: Request,
        mode: Mode,
        gate: Gate,
        pair: _Pair,
        deadline: Deadline,
        on_progress: Callable[[Progress], None] | None,
    ) -> tuple[TokenBuffer, Account]:
        """All tokens of the picture; an error carries those that were final."""
        assert self._known_info is not None
        buffer = TokenBuffer(self._known_info.manifest.num_tokens)
        decoding = Decoding(
            request,
            transport=self._transport,
            drafter=None if mode is Mode.CLOUD else pair.drafter,
            gate=gate,
            buffer=buffer,
            deadline=deadline,
            retry=self._retry,
            on_commit=_reporter(on_progress, pair.decoder),
        )
        try:
            decoding.run()
        except CiarError as error:
            set_committed(error, buffer)
            raise
        return buffer, decoding.account

    def _pair(self, manifest: Manifest, deadline: Deadline) -> _Pair:
        """Drafter and decoder, fetched and loaded once."""
        if self._known_pair is None:
            paths = self._cache.device_files(
                manifest, lambda name: self._transport.artifact(name, deadline.remaining_s())
            )
            if missing := {DRAFTER, DECODER} - set(paths):
                raise PairMismatch(f"manifest: no device file {', '.join(sorted(missing))}")
            self._known_pair = _Pair(Drafter(paths[DRAFTER], manifest), Decoder(paths[DECODER]))
        return self._known_pair

    @contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[None]:
        if not self._lock.acquire(timeout=deadline.remaining_s()):
            raise TimedOut("timeout_s: other pictures of this client took all the time")
        try:
            yield
        finally:
            self._lock.release()


def _result(
    image: Image.Image,
    buffer: TokenBuffer,
    account: Account,
    timings: Timings,
    manifest: Manifest,
    seed: int,
    mode: Mode,
    gate_name: str,
) -> Result:
    decisions = tuple(decision for decision in buffer.decisions if decision is not None)
    assert len(decisions) == manifest.num_tokens, "every token of a complete picture was decided by someone"
    return Result(
        image=image,
        tokens=tuple(buffer.tokens.tolist()),
        decisions=decisions,
        uncertainty=tuple(value if math.isfinite(value) else None for value in buffer.uncertainty.tolist()),
        near_ties=tuple(sorted(buffer.near_ties)),
        grid_width=manifest.grid_width,
        seed=seed,
        mode=mode,
        gate=gate_name,
        traffic=Traffic(
            num_requests=buffer.num_requests + (mode is Mode.CLOUD) * (1 + account.num_resumptions),
            num_verdicts=buffer.num_verdicts_in_all,
            num_sent_to_verify=buffer.num_sent_to_verify,
            num_forks=buffer.num_forks,
            num_discarded=buffer.num_discarded,
            num_resumptions=account.num_resumptions,
            bytes_up=account.bytes_up,
            bytes_down=account.bytes_down,
        ),
        timings=timings,
        cost=buffer.cost,
    )


def _reporter(on_progress: Callable[[Progress], None] | None, decoder: Decoder) -> Callable[[TokenBuffer], None] | None:
    if on_progress is None:
        return None

    def report(buffer: TokenBuffer) -> None:
        def preview() -> Image.Image:
            tokens = buffer.tokens.copy()  # (T,)
            tokens[buffer.committed_end :] = tokens[max(0, buffer.committed_end - 1)]
            return decoder(tokens)

        on_progress(Progress(buffer.committed_end, buffer.num_tokens, preview))

    return report


def _gate(mode: Mode, gate: Gate | str | None, manifest: Manifest) -> Gate:
    if gate is not None and mode is not Mode.CIAR:
        raise InvalidRequest(f"gate: mode {mode.value!r} has no gate to choose; leave it out, or take mode 'ciar'")
    match mode:
        case Mode.LOSSLESS:
            return VerifyAll()
        case Mode.DEVICE | Mode.CLOUD:
            return VerifyNone()
        case Mode.CIAR:
            spec = manifest.defaults.gate if gate is None else gate
            return make_gate(spec, manifest) if isinstance(spec, str) else spec


def _parse_mode(mode: Mode | str) -> Mode:
    try:
        return Mode(mode)
    except ValueError:
        known = [member.value for member in Mode]
        nearest = difflib.get_close_matches(str(mode), known, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}"
        raise InvalidRequest(f"mode: unknown mode {mode!r}; {hint}") from None


def _sampling(manifest: Manifest, **given: Any) -> Sampling:
    """What was given, and the pair's defaults for what was not."""
    defaults = manifest.defaults.model_dump(include={"guidance", "temperature", "top_k", "top_p"})
    try:
        return Sampling(**(defaults | {name: value for name, value in given.items() if value is not None}))
    except ValidationError as exc:
        raise sampling_error(exc) from exc


def _num_prefix_tokens(prefix_rate: float | None, manifest: Manifest) -> int:
    """m = ⌊ρT⌋, with ρT forgiven its rounding error."""
    rate = manifest.defaults.prefix_rate if prefix_rate is None else prefix_rate
    if not 0 <= rate <= 1:
        raise InvalidRequest(f"prefix_rate: must be in [0, 1] (got {rate!r})")
    return math.floor(rate * manifest.num_tokens + 1e-9)


def _require_timeout(name: str, value: float) -> None:
    if not 0 < value <= MAX_TIMEOUT_S:
        raise InvalidRequest(f"{name}: must be above 0 and at most {MAX_TIMEOUT_S:g} seconds (got {value!r})")


def _require_count(name: str, value: int, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= value < 2**31:
        raise InvalidRequest(f"{name}: must be a whole number, at least {least} (got {value!r})")
    return int(value)
