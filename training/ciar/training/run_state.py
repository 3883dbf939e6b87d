"""What every training step shares: a budget, the position in it, checkpoints that resume exactly, a log.

Flows in: the parts of a run (anything with `state_dict`) and one step of it as a function. Flows out: a checkpoint, a
curve (CSV and TensorBoard), a progress bar. Knows nothing of models, data or losses.

Exactly: a run of `num_steps` that was stopped and resumed ends with the weights, bit for bit, of one that was not. With
a budget in `seconds` the learning rate follows the clock, so no two runs are alike.
"""

from __future__ import annotations

import csv
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

LOG_EVERY = 25
"""Steps between two entries of the training curve, each the mean over them."""


class Budget(BaseModel):
    """How long to train: a number of steps, or seconds of wall-clock time over all resumed runs; one of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float | None = Field(default=None, gt=0)
    """Wall-clock budget; the schedule ends with it, so the result depends on the machine."""
    num_steps: int | None = Field(default=None, gt=0)
    """Budget in steps: the result depends on configuration, data and seed alone."""

    @model_validator(mode="before")
    @classmethod
    def _what_is_given_replaces_the_default(cls, data: Any) -> Any:
        given = [name for name in ("seconds", "num_steps") if isinstance(data, dict) and data.get(name) is not None]
        if len(given) == 2:
            raise ValueError("give `seconds` or `num_steps`, not both")
        return {"seconds": None, "num_steps": None} | data if given else data

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if self.seconds is None and self.num_steps is None:
            raise ValueError("give `seconds` or `num_steps`")
        return self

    def spent(self, step: int, elapsed: float) -> float:
        """Share of the budget that is spent, 0 … 1."""
        if self.num_steps is not None:
            return min(1.0, step / self.num_steps)
        assert self.seconds is not None
        return min(1.0, elapsed / self.seconds)

    def fixed(self, *free: str) -> dict[str, Any]:
        """The fields that a resumed run must share: all but the budget and those named."""
        return self.model_dump(exclude={"seconds", "num_steps", *free})


class Stateful(Protocol):
    """A part of a run: modules and optimizers are, generators are wrapped below."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


@dataclass(frozen=True)
class NumpyState:
    """The position of a NumPy generator."""

    rng: np.random.Generator

    def state_dict(self) -> Any:
        return self.rng.bit_generator.state

    def load_state_dict(self, state: Any) -> None:
        self.rng.bit_generator.state = state


@dataclass(frozen=True)
class TorchState:
    """The position of a torch generator."""

    generator: torch.Generator

    def state_dict(self) -> Any:
        return self.generator.get_state()

    def load_state_dict(self, state: Any) -> None:
        self.generator.set_state(state)


@dataclass(frozen=True)
class Several:
    """Parts of one kind, such as the optimizers of a run."""

    parts: Sequence[Stateful]

    def state_dict(self) -> Any:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, state: Any) -> None:
        for part, held in zip(self.parts, state, strict=True):
            part.load_state_dict(held)


Precision = Literal["float32", "bfloat16"]
"""What matrices are multiplied in while training; bfloat16 pays on CPUs with avx512_bf16 or AMX, and on GPUs."""


def precision(name: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Multiply matrices in that precision; weights and sums stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=name == "bfloat16")


def pick_device(name: str) -> torch.device:
    """The device of that name. Raises ValueError if it is `cuda` and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError('device: "cuda" is not there; set device = "cpu", or install torch with CUDA and a driver')
    return torch.device(name)


class TrainingRun:
    """One resumable training run: `folder/name.pt` is its checkpoint, `name.csv` its curve, `events` TensorBoard's."""

    def __init__(
        self,
        folder: Path,
        name: str,
        budget: Budget,
        identity: Mapping[str, Any],
        parts: Mapping[str, Stateful],
        checkpoint_seconds: float = 240.0,
    ) -> None:
        """`identity` is what a resumed run must share; `parts` is all that a step reads and changes."""
        self.folder, self.name, self.budget, self.identity, self.parts = folder, name, budget, dict(identity), parts
        self.checkpoint_seconds = checkpoint_seconds
        self.step, self.elapsed = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.name}.pt"

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0 … 1."""
        return self.budget.spent(self.step, self.elapsed)

    def save(self) -> None:
        """Write everything that a resumed run needs, in one rename."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"identity": self.identity, "position": {"step": self.step, "elapsed": self.elapsed}}
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").replace(self.checkpoint)

    def resume(self) -> bool:
        """Go on from the checkpoint; False if there is none.

        Raises ValueError that names the fields, if it was made with another configuration. A field that the
        checkpoint does not know of is not compared.
        """
        if not self.checkpoint.is_file():
            return False
        state = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
        if differing := differences(state["identity"], self.identity):
            raise ValueError(
                f"{self.checkpoint} was made with another configuration: {'; '.join(differing)}; "
                "go back to it, or begin in another --run folder"
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.step, self.elapsed = state["position"]["step"], state["position"]["elapsed"]
        return True

    def run(
        self,
        train_step: Callable[[], Mapping[str, float]],
        *,
        until: float = 1.0,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        evaluate_seconds: float = 600.0,
    ) -> None:
        """Call `train_step` until that share of the budget is spent; both functions return figures by name.

        An interrupt (SIGINT, SIGTERM) waits for the end of the step: the run is saved, then KeyboardInterrupt raised.
        After any other exception the last checkpoint stands. `evaluate` must not touch the parts.
        """
        curve = self.folder / f"{self.name}.csv"
        fresh = not curve.exists()
        with (
            SummaryWriter(self.folder / "events", purge_step=self.step) as writer,
            curve.open("a", newline="", encoding="utf-8") as file,
        ):
            table = csv.writer(file)
            if fresh:
                table.writerow(["step", "seconds", "name", "value"])

            def log(figures: Mapping[str, float]) -> None:
                for name, value in figures.items():
                    table.writerow([self.step, round(self.elapsed, 1), name, f"{value:.5f}"])
                    writer.add_scalar(name, value, self.step)
                file.flush()

            with deferred_interrupts() as interrupts:
                self._loop(train_step, until, evaluate, evaluate_seconds, log, interrupts)
                self.save()
        if interrupts:
            raise KeyboardInterrupt

    def _loop(
        self,
        train_step: Callable[[], Mapping[str, float]],
        until: float,
        evaluate: Callable[[], Mapping[str, float]] | None,
        evaluate_seconds: float,
        log: Callable[[Mapping[str, float]], None],
        interrupts: Sequence[int],
    ) -> None:
        last, next_save = time.monotonic(), self.elapsed + self.checkpoint_seconds
        next_evaluation, recent = self.elapsed + evaluate_seconds / 5, []
        with self._bar(until) as bar:
            while self.progress < until and not interrupts:
                recent.append(train_step())
                now = time.monotonic()
                self.step, self.elapsed, last = self.step + 1, self.elapsed + now - last, now
                if self.step % LOG_EVERY == 0:
                    means = {name: float(np.mean([figures[name] for figures in recent])) for name in recent[-1]}
                    log(means)
                    bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()} | {"step": self.step})
                    recent = []
                if evaluate is not None and self.elapsed >= next_evaluation:
                    log(evaluate())
                    next_evaluation = self.elapsed + evaluate_seconds
                if self.elapsed >= next_save:
                    self.save()
                    next_save = self.elapsed + self.checkpoint_seconds
                bar.update(self._bar_position() - bar.n)

    def _bar_position(self) -> int:
        return self.step if self.budget.num_steps is not None else round(self.elapsed)

    def _bar(self, until: float) -> tqdm:
        steps = self.budget.num_steps
        total, unit = (round(self.budget.seconds or 0), "s") if steps is None else (steps, "step")
        start = self._bar_position()
        return tqdm(total=round(total * until), initial=start, desc=self.name, unit=unit, mininterval=5)


@contextmanager
def deferred_interrupts() -> Iterator[Sequence[int]]:
    """SIGINT and SIGTERM only note themselves in what is yielded; outside the main thread nothing changes."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda received, _frame: noted.append(received))
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The leaves of `old` that differ in `new`, each with both values."""
    found = []
    for key in sorted(old):
        x, y = old[key], new.get(key)
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            found += [f"{key}.{line}" for line in differences(x, y)]
        elif x != y:
            found.append(f"{key} was {x} and is {y}")
    return found
