"""The device's commands: `ciar generate` and `ciar info`.

Exit codes: 0 done; 1 other error; 2 bad request or usage; 3 busy; 4 timed out; 5 no server; 6 device and server do not
fit together.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from ciar.device_client.client import DEFAULT_MAX_AHEAD, Client, Info, Progress
from ciar.device_client.heatmap import heatmap
from ciar.device_client.local_server import LocalServer
from ciar.device_client.result import Result
from ciar.shared.bundle import Manifest, embedded_bundle, load_manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import (
    Busy,
    CiarError,
    InvalidRequest,
    NotFound,
    PairMismatch,
    ProtocolError,
    TimedOut,
    Unavailable,
)

EXIT_CODES: dict[type[CiarError], int] = {
    InvalidRequest: 2,
    NotFound: 2,
    Busy: 3,
    TimedOut: 4,
    Unavailable: 5,
    PairMismatch: 6,
    ProtocolError: 6,
}

Server = Annotated[str | None, typer.Option("--server", help="HOST:PORT; without it, one is started for this call.")]
Bundle = Annotated[Path | None, typer.Option("--bundle", help="Folder of the pair for a server started here.")]
Default = "default: the pair's own"


def generate(
    prompt: Annotated[str, typer.Argument(help="What to show, such as 'red filled heart on cream'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Image file to write.")] = Path("picture.png"),
    seed: Annotated[int, typer.Option(help="One seed, one picture.")] = 0,
    mode: Annotated[str, typer.Option(help="ciar, lossless, cloud or device.")] = "ciar",
    server: Server = None,
    bundle: Bundle = None,
    gate: Annotated[
        str | None,
        typer.Option(
            help="calibrated:SHARE, nearby:SHARE:NEAR, quantile:SHARE, threshold:U, certified:BUDGET, always or never; "
            f"{Default}."
        ),
    ] = None,
    max_window: Annotated[
        int,
        typer.Option(help="Most positions verified in a cloud pass; 1: one pass a token, 0: the server's choice."),
    ] = 0,
    max_ahead: Annotated[int, typer.Option(help="Most tokens drafted past the final ones.")] = DEFAULT_MAX_AHEAD,
    prefix_rate: Annotated[
        float | None, typer.Option(help=f"Share of tokens that the cloud generates first; {Default}.")
    ] = None,
    guidance: Annotated[float | None, typer.Option(help=f"Classifier-free guidance, 1 is none; {Default}.")] = None,
    temperature: Annotated[float | None, typer.Option(help=f"0 is greedy; {Default}.")] = None,
    top_k: Annotated[int | None, typer.Option(help=f"0 keeps all; {Default}.")] = None,
    top_p: Annotated[float | None, typer.Option(help=f"1 keeps all; {Default}.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for the whole picture.")] = 60.0,
    heatmap_file: Annotated[
        Path | None, typer.Option("--heatmap", help="Image file for who decided each token.")
    ] = None,
    scale: Annotated[int, typer.Option(min=1, max=64, help="Enlarge the saved picture, without smoothing.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print all about the picture as one JSON line.")] = False,
) -> None:
    """Generate a picture.

    Exit codes: 1 other error, 2 bad request, 3 server busy, 4 timed out, 5 no server, 6 device and server do not fit.
    """
    with _one_sentence(), ExitStack() as stack:
        for path in filter(None, (output, heatmap_file)):
            _require_writable(path)
        address = server or stack.enter_context(LocalServer(bundle)).address
        client = stack.enter_context(Client(address))
        result = client.generate(
            prompt,
            seed=seed,
            mode=mode,
            gate=gate,
            max_window=max_window,
            max_ahead=max_ahead,
            prefix_rate=prefix_rate,
            guidance=guidance,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            timeout_s=timeout,
            on_progress=stack.enter_context(_progress_bar(prompt)),
        )
        size = (result.image.width * scale, result.image.height * scale)
        _save(result.image.resize(size, Image.Resampling.NEAREST), output)
        if heatmap_file is not None:
            _save(heatmap(result), heatmap_file)
    typer.echo(result.to_json() if as_json else _summary(result, output))


def info(
    server: Server = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Folder of a pair; default: the embedded one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as one JSON line.")] = False,
) -> None:
    """Describe a model pair: that of a server, or of a bundle folder."""
    with _one_sentence():
        if server is not None:
            with Client(server) as client:
                known: Info | None = client.info()
            assert known is not None
            manifest, vocabulary = known.manifest, None
        else:
            folder = bundle or embedded_bundle()
            manifest, known = load_manifest(folder), None
            captions = folder / "captions.json"
            vocabulary = CaptionVocabulary.load(captions) if captions.is_file() else None
    if as_json:
        typer.echo(manifest.model_dump_json())
    else:
        typer.echo("\n".join(_describe(manifest, known, vocabulary)))


def _describe(manifest: Manifest, known: Info | None, vocabulary: CaptionVocabulary | None) -> Iterator[str]:
    yield f"pair      {manifest.name} {manifest.version}"
    size = f"{manifest.image_width}×{manifest.image_height} px"
    yield f"picture   {size}, {manifest.num_tokens} tokens of a vocabulary of {manifest.vocab_size}"
    defaults = manifest.defaults.model_dump()
    yield "defaults  " + ", ".join(f"{name} {value}" for name, value in defaults.items())
    for name, entry in manifest.files.items():
        yield f"file      {name}: {entry.role}, {entry.size_bytes / 1e6:.1f} MB, SHA-256 {entry.sha256[:12]}…"
    if known is not None:
        yield f"server    {known.server_version}"
        yield (
            f"limits    {known.limits.max_window} positions a pass, {known.limits.max_in_flight} drafts in flight, "
            f"{known.limits.idle_timeout_ms} ms idle, {known.limits.max_prompt_bytes} bytes of prompt"
        )
    if vocabulary is not None:
        for kind, phrases in vocabulary.kinds.items():
            yield f"{kind:<9} {', '.join(phrases)}"
        for example in vocabulary.examples:
            yield f"example   {example}"


def _summary(result: Result, output: Path) -> str:
    timings, traffic = result.timings, result.traffic
    return (
        f"{output}: {len(result.tokens)} tokens in {timings.total_s:.2f} s, {result.cloud_share:.0%} of them by or "
        f"with the cloud in {traffic.num_requests} requests, {traffic.bytes_up + traffic.bytes_down} bytes"
    )


def _require_writable(path: Path) -> None:
    """Raises InvalidRequest if an image cannot be written there: better before the work than after."""
    if path.suffix.lower() not in Image.registered_extensions():
        raise InvalidRequest(f"output: {str(path)!r} has no image suffix; end it with .png")
    if path.is_dir():
        raise InvalidRequest(f"output: {path} is a folder")
    if not path.parent.is_dir():
        raise InvalidRequest(f"output: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidRequest(f"output: may not write {path}")


def _save(image: Image.Image, path: Path) -> None:
    try:
        image.save(path)
    except OSError as exc:
        raise InvalidRequest(f"output: cannot write {path} ({exc})") from exc


@contextmanager
def _progress_bar(prompt: str) -> Iterator[Callable[[Progress], None] | None]:
    """A bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns: Any = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with ProgressBar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(prompt, total=None)
        yield lambda progress: bar.update(task, completed=progress.num_committed, total=progress.num_tokens)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """An error is one sentence on standard error, and an exit code."""
    try:
        yield
    except CiarError as error:
        _fail(str(error), EXIT_CODES.get(type(error), 1))
    except KeyboardInterrupt:
        _fail("interrupted", 130)


def _fail(sentence: str, code: int) -> NoReturn:
    typer.echo(f"error: {' '.join(sentence.split())}", err=True)
    raise typer.Exit(code)
