"""What the measuring commands share: their prompts and seeds, the run itself, the progress bar, and how they fail."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ciar.benchmarks.bench import run
from ciar.benchmarks.figures import unexplained
from ciar.benchmarks.journal import Journal
from ciar.benchmarks.measurement import Measurement, Task
from ciar.benchmarks.methods import BASE, STRONGEST, Method, Setting
from ciar.benchmarks.profiles import FLOOR, Profile
from ciar.benchmarks.prompts import prompts_of
from ciar.benchmarks.stage import Stage, digest
from ciar.cloud_server.settings import EMBEDDED_BUNDLE
from ciar.device_client import Mode
from ciar.shared.bundle import Manifest
from ciar.shared.conditioning import CaptionVocabulary
from ciar.shared.errors import InvalidRequest

NUM_CALIBRATION_PROMPTS = 12


def measure_all(
    stage: Stage,
    journal: Journal,
    tasks: Sequence[Task],
    methods: Mapping[str, Method],
    calibration: Sequence[str],
    verify_share: float,
) -> Sequence[Measurement]:
    """Warm up, calibrate, and measure every task that the journal lacks.

    methods: by the names in the tasks; calibration: prompts for the gates' thresholds.
    """
    with progress_bar(len(tasks)) as show:
        if len(journal.measurements) < len(tasks):
            show("warming up", len(journal.measurements))
            stage.warm_up(tasks[0].prompt)
            show("calibrating gates", len(journal.measurements))
            priors = stage.calibrate(methods, calibration)
            setting = Setting(stage.info().manifest, verify_share, priors)
        return run(
            tasks,
            lambda task: stage.draw(methods[task.method], task, setting),
            journal,
            lambda task, num_done: show(f"{task.profile}: {task.method}", num_done),
        )


def choose_prompts(
    given: Sequence[str] | None, count: int, bundle: Path | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Prompts to measure, and others for calibration. Raises InvalidRequest if there are no words to make them of."""
    if given:
        return tuple(given), tuple(given)[:NUM_CALIBRATION_PROMPTS]
    captions = (bundle or EMBEDDED_BUNDLE) / "captions.json"
    if not captions.is_file():
        raise InvalidRequest(f"prompts: there is no {captions} to take them from; give --bundle or --prompt")
    vocabulary = CaptionVocabulary.load(captions)
    own = prompts_of(vocabulary, count)
    return own, prompts_of(vocabulary, NUM_CALIBRATION_PROMPTS, start=count)


def describe(manifest: Manifest) -> dict[str, Any]:
    """A pair in JSON's types."""
    return {
        "name": manifest.name,
        "version": manifest.version,
        "digest": digest(manifest),
        "num_tokens": manifest.num_tokens,
        "vocab_size": manifest.vocab_size,
    }


def parse_seeds(text: str) -> list[int]:
    """Seeds with commas between. Raises InvalidRequest."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidRequest(f"seeds: whole numbers with commas between, such as 0,1,2 (got {text!r})") from None
    if not all(0 <= seed < 2**64 for seed in seeds):
        raise InvalidRequest(f"seeds: must be in [0, 2⁶⁴) (got {text!r})")
    return list(dict.fromkeys(seeds))


def with_base(names: Sequence[str]) -> list[str]:
    """The base and the strongest opponent belong to every run."""
    return [BASE, STRONGEST, *(name for name in names if name not in (BASE, STRONGEST))]


def rows_by_profile(profiles: Mapping[str, Profile], methods: Mapping[str, Method]) -> dict[str, list[str]]:
    """Methods of each profile; the cloud alone has no drafts to be accepted, so no floor."""
    rows = {profile: list(methods) for profile in profiles}
    drafting = [name for name, method in methods.items() if method.mode is not Mode.CLOUD]
    return rows | ({FLOOR.name: drafting} if drafting else {})


def require_lossless(measurements: Sequence[Measurement]) -> None:
    """Fail if a picture of an exact method is not the cloud's own."""
    if wrong := unexplained(measurements):
        first = wrong[0]
        fail(
            f"{first.method}: {len(wrong)} pictures that must be the cloud's own differ from it without a near tie, "
            f"the first for {first.prompt!r}, seed {first.seed}: this is a bug, please report it",
            1,
        )


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar on standard error, if that is a terminal."""
    columns: Any = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda what, num_done: bar.update(task, description=what, completed=num_done)


def fail(sentence: str, code: int, journal: Journal | None = None) -> NoReturn:
    """One line on standard error, with what a journal has kept, and an exit code."""
    kept = ""
    if journal is not None and journal.num_kept:
        kept = f"; {journal.num_kept} finished and kept in {journal.path}: --resume goes on"
    typer.echo(f"error: {' '.join(sentence.split())}{kept}", err=True)
    raise typer.Exit(code)
