"""The SDK: a client of one cloud, which draws pictures together with it.

In: a prompt and settings. Out: a `Result`. The client owns the channel, the cached files and the loaded graphs; how a
picture is drawn is the loop's.
"""

from __future__ import annotations

import difflib
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, Self

from PIL import Image
from pydantic import ValidationError

from ciar.device_client.artifacts import ArtifactCache, default_cache
from ciar.device_client.carried import CarriedTrack
from ciar.device_client.decoder import NAME as DECODER
from ciar.device_client.decoder import Decoder
from ciar.device_client.drafter import NAME as DRAFTER
from ciar.device_client.drafter import Drafter, Drafts
from ciar.device_client.gates import AlwaysAsk, Gate, NeverAsk, bounded, make_gate
from ciar.device_client.loop import Account, Loop, Request, set_committed
from ciar.device_client.result import Decision, Mode, Result, Timings, Traffic
from ciar.device_client.track import Track
from ciar.device_client.transport import GrpcTransport, Transport
from ciar.device_client.tree import TreeLoop
from ciar.device_client.waiting import Deadline, Retry, RetryPolicy
from ciar.shared.bundle import Manifest, parse_manifest
from ciar.shared.codec import sampling_error
from ciar.shared.errors import Busy, CiarError, InvalidRequest, PairMismatch, ProtocolError, TimedOut, Unavailable
from ciar.shared.types import COUPLED, Acceptance, Limits, Sampling
from ciar.shared.verification import parse_acceptance

DEFAULT_DEPTH = 2
DEFAULT_MAX_AHEAD = 32
MAX_TIMEOUT_S = 86_400.0
MAX_LAW_BYTES = 2**19
"""Of the device's laws in one block: half of what a server takes as a message."""

_ASKING = (Mode.CIAR, Mode.LOSSLESS)
"""Modes in which the cloud is asked about tokens."""


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


@dataclass(frozen=True, slots=True)
class _Pair:
    """The device's side of a bundle, loaded."""

    drafter: Drafts
    decoder: Decoder


class Client:
    """Draws pictures with a cloud. A context manager.

    May be shared between threads, but draws one picture at a time (drafter and decoder have one state): others wait
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
            self._known_info = Info(manifest, limits, version)
        return self._known_info

    def generate(
        self,
        prompt: str,
        *,
        seed: int = 0,
        mode: Mode | str = Mode.CIAR,
        gate: Gate | str | None = None,
        depth: int = DEFAULT_DEPTH,
        max_ahead: int = DEFAULT_MAX_AHEAD,
        guidance: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        prefix_rate: float | None = None,
        acceptance: str = "coupled",
        tree_nodes: int = 0,
        send_features: bool = False,
        carry_on: bool | None = None,
        timeout_s: float = 60.0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Result:
        """Draw one picture.

        seed: in [0, 2⁶⁴); with the same settings it gives the same picture, whatever the network does.
        mode: who draws (see `Mode`). gate: for mode "ciar", as `make_gate` reads it, or your own (it has a state: one
        for each thread).
        depth: most questions that wait for an answer; max_ahead: most tokens drafted past the final ones. Both change
        the time and not the picture.
        guidance, temperature, top_k, top_p, prefix_rate (ρ, share of tokens that the cloud writes first): by default
        the pair's measured settings.
        acceptance: how the cloud judges a token that it is asked about (modes "lossless" and "ciar"). "coupled": it
        stands if the cloud draws the same with the same seed. "classic": min(1, p/q) and a residual, so that the
        picture has the cloud's law and is not its own. "lantern:K:DELTA", or "lantern" with the paper's numbers:
        classic, relaxed, so that it has not even the law. The last two send 2·V bytes with each asked token.
        tree_nodes: in mode "lossless" with the coupled rule, draft trees of so many nodes in place of a chain (0), and
        wait for each answer; `depth` and `max_ahead` have no meaning then.
        send_features: tell the cloud how sure the device was of its own tokens (paper; no gain in measured quality, and
        what was asked behind a correction must then be asked again).
        carry_on: behind a correction the cloud goes on with what was drafted there (ours): the same picture with fewer
        round trips. By default wherever it can be: with the coupled rule, on a chain, without features.
        timeout_s: for the whole picture, waiting for other threads' pictures included.

        Raises InvalidRequest (names the value), Busy, TimedOut, Unavailable, PairMismatch, ProtocolError; what was
        drawn by then is in the error's `committed`.
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
            request = Request(
                prompt,
                sampling,
                _num_prefix_tokens(prefix_rate, manifest),
                manifest.device_digests(),
                depth=_require_count("depth", depth, info.limits.max_in_flight),
                max_ahead=_require_count("max_ahead", max_ahead, None),
                acceptance=_acceptance(chosen, acceptance, manifest),
            )
            num_nodes = _num_tree_nodes(chosen, tree_nodes, request.acceptance, info.limits)
            asks_chains = chosen in _ASKING and request.acceptance == COUPLED and not num_nodes
            request = replace(request, carry_on=_carry_on(carry_on, can=asks_chains and not send_features))
            limits = _fitting(info.limits, request.acceptance, manifest)
            chosen_gate = bounded(_gate(chosen, gate, manifest), limits.max_block_tokens)
            pair = self._pair(manifest, deadline)
            sizes = manifest.num_tokens, manifest.vocab_size, manifest.feature_dim
            track = CarriedTrack(*sizes) if request.carry_on else Track(*sizes, send_features=send_features)
            report = _reporter(on_progress, pair.decoder)
            ready = perf_counter()
            try:
                if chosen is Mode.CLOUD:
                    account = self._draw_in_the_cloud(request, track, deadline, report)
                else:
                    account = self._draw_together(request, chosen_gate, num_nodes, track, limits, deadline, report)
            except CiarError as error:
                set_committed(error, track)
                raise
            decoding = perf_counter()
            image = pair.decoder(track.tokens)
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
        rule_name = str(request.acceptance) if chosen in _ASKING else "none"
        return _result(image, track, account, timings, manifest, sampling.seed, chosen, gate_name, rule_name)

    def _draw_together(
        self,
        request: Request,
        gate: Gate,
        num_nodes: int,
        track: Track,
        limits: Limits,
        deadline: Deadline,
        report: Callable[[Track], None] | None,
    ) -> Account:
        assert self._known_pair is not None
        loop_of = partial(TreeLoop, num_nodes=num_nodes) if num_nodes else Loop
        loop = loop_of(
            request,
            transport=self._transport,
            drafter=self._known_pair.drafter,
            gate=gate,
            track=track,
            limits=limits,
            deadline=deadline,
            retry=self._retry,
            on_commit=report,
        )
        loop.run()
        return loop.account

    def _draw_in_the_cloud(
        self, request: Request, track: Track, deadline: Deadline, report: Callable[[Track], None] | None
    ) -> Account:
        account, retry, began = Account(), Retry(self._retry, deadline), perf_counter()
        while not track.is_complete:
            known = track.tokens[: track.committed_end].tolist()
            track.num_requests += 1
            try:
                parts = self._transport.generate(request.prompt, request.sampling, known, deadline.remaining_s())
                for written, num_bytes in parts:
                    account.bytes_down += num_bytes
                    track.add_written(written, Decision.CLOUD)
                    if report is not None:
                        report(track)
                if not track.is_complete:
                    raise Unavailable("server: it ended the picture before its last token")
            except (Unavailable, Busy, TimedOut) as error:
                retry.wait(error, track.committed_end)
                account.num_resumptions += 1
        account.waiting_s = perf_counter() - began
        return account

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
    track: Track,
    account: Account,
    timings: Timings,
    manifest: Manifest,
    seed: int,
    mode: Mode,
    gate_name: str,
    rule_name: str,
) -> Result:
    decisions = tuple(decision for decision in track.decisions if decision is not None)
    assert len(decisions) == manifest.num_tokens, "every token of a complete picture was decided by someone"
    return Result(
        image=image,
        tokens=tuple(track.tokens.tolist()),
        decisions=decisions,
        uncertainty=tuple(value if math.isfinite(value) else None for value in track.uncertainty.tolist()),
        near_ties=tuple(sorted(set(track.near_ties))),
        grid_width=manifest.grid_width,
        seed=seed,
        mode=mode,
        gate=gate_name,
        acceptance=rule_name,
        traffic=Traffic(
            num_requests=track.num_requests,
            num_asked=track.num_asked,
            num_corrections=track.num_corrections,
            num_discarded=track.num_discarded,
            num_resumptions=account.num_resumptions,
            bytes_up=account.bytes_up,
            bytes_down=account.bytes_down,
        ),
        timings=timings,
        cost=track.cost,
    )


def _reporter(on_progress: Callable[[Progress], None] | None, decoder: Decoder) -> Callable[[Track], None] | None:
    if on_progress is None:
        return None

    def report(track: Track) -> None:
        def preview() -> Image.Image:
            tokens = track.tokens.copy()  # (T,)
            tokens[track.committed_end :] = tokens[max(0, track.committed_end - 1)]
            return decoder(tokens)

        on_progress(Progress(track.committed_end, track.num_tokens, preview))

    return report


def _gate(mode: Mode, gate: Gate | str | None, manifest: Manifest) -> Gate:
    if gate is not None and mode is not Mode.CIAR:
        raise InvalidRequest(f"gate: mode {mode.value!r} has no gate to choose; leave it out, or take mode 'ciar'")
    match mode:
        case Mode.LOSSLESS:
            return AlwaysAsk()
        case Mode.DEVICE | Mode.CLOUD:
            return NeverAsk()
        case Mode.CIAR:
            spec = manifest.defaults.gate if gate is None else gate
            return make_gate(spec, manifest) if isinstance(spec, str) else spec


def _acceptance(mode: Mode, spec: str, manifest: Manifest) -> Acceptance:
    acceptance = parse_acceptance(spec, manifest.vocab_size)
    if mode not in _ASKING and acceptance != COUPLED:
        raise InvalidRequest(f"acceptance: mode {mode.value!r} asks the cloud nothing; leave it out")
    return acceptance


def _carry_on(value: bool | None, *, can: bool) -> bool:
    if value and not can:
        raise InvalidRequest(
            "carry_on: needs mode 'ciar' or 'lossless', acceptance 'coupled', no tree_nodes and no send_features"
        )
    return can if value is None else value


def _num_tree_nodes(mode: Mode, value: int, acceptance: Acceptance, limits: Limits) -> int:
    if value == 0:
        return 0
    if mode is not Mode.LOSSLESS or acceptance != COUPLED:
        raise InvalidRequest("tree_nodes: trees are for mode 'lossless' with acceptance 'coupled'; leave it at 0")
    return _require_count("tree_nodes", value, limits.max_block_tokens)


def _fitting(limits: Limits, acceptance: Acceptance, manifest: Manifest) -> Limits:
    """The server's limits, with blocks short enough for the laws that travel in them."""
    if not acceptance.needs_laws:
        return limits
    most = max(1, MAX_LAW_BYTES // (2 * manifest.vocab_size))
    return replace(limits, max_block_tokens=min(limits.max_block_tokens, most))


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


def _require_count(name: str, value: int, most: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidRequest(f"{name}: must be a whole number, at least 1 (got {value!r})")
    return value if most is None else min(value, most)
