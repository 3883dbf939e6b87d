"""Budgets, and runs that are stopped and go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ciar.training.run_state import Budget, NumpyState, TorchState, TrainingRun, pick_device


class Walk:
    """A random walk that reads both generators and momentum; stands for a model in training."""

    def __init__(self, folder: Path, num_steps: int = 8, rate: float = 0.1) -> None:
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 4)
        self.optimizer = torch.optim.AdamW(self.layer.parameters(), lr=rate)
        self.rng, self.generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
        parts = {
            "layer": self.layer,
            "optimizer": self.optimizer,
            "rng": NumpyState(self.rng),
            "generator": TorchState(self.generator),
        }
        self.run = TrainingRun(folder, "walk", Budget(num_steps=num_steps), {"rate": rate}, parts)

    def train_step(self) -> dict[str, float]:
        x = torch.randn(3, 4, generator=self.generator) * float(self.rng.random())
        loss = (self.layer(x) - 1).square().mean() * (1 - self.run.progress)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss/train": loss.item()}

    def weights(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.layer.parameters()])


@pytest.mark.parametrize(
    ("given", "message"),
    [({}, "`seconds` or `num_steps`"), ({"seconds": 1, "num_steps": 1}, "not both"), ({"num_steps": 0}, "num_steps")],
)
def test_a_budget_is_one_of_two(given: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Budget(**given)


def test_what_is_given_replaces_the_default() -> None:
    class Config(Budget):
        seconds: float | None = 10.0

    assert Config().spent(99, 5.0) == 0.5
    assert Config(num_steps=4).seconds is None
    assert Config(num_steps=4).spent(1, 99.0) == 0.25

    class Steps(Budget):
        num_steps: int | None = 10

    assert Steps(seconds=4).spent(9, 1.0) == 0.25


def test_a_stopped_run_ends_like_one_that_was_not(tmp_path: Path) -> None:
    straight = Walk(tmp_path / "straight")
    straight.run.run(straight.train_step)
    first = Walk(tmp_path / "stopped")
    first.run.run(first.train_step, until=0.5)
    assert not torch.equal(first.weights(), straight.weights())
    second = Walk(tmp_path / "stopped")
    assert second.run.resume()
    second.run.run(second.train_step)
    assert second.run.step == 8
    assert torch.equal(second.weights(), straight.weights())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_the_step(number: int, tmp_path: Path) -> None:
    straight = Walk(tmp_path / "straight")
    straight.run.run(straight.train_step)
    first = Walk(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        first.run.run(_interrupted(first, number, at=3))
    second = Walk(tmp_path / "stopped")
    assert second.run.resume()
    assert second.run.step == 4
    second.run.run(second.train_step)
    assert torch.equal(second.weights(), straight.weights())


def _interrupted(walk: Walk, number: int, at: int) -> Callable[[], dict[str, float]]:
    def train_step() -> dict[str, float]:
        if walk.run.step == at:
            os.kill(os.getpid(), number)
        return walk.train_step()

    return train_step


def test_a_failing_step_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    first = Walk(tmp_path)
    first.run.run(first.train_step, until=0.25)

    def fail() -> dict[str, float]:
        first.train_step()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        first.run.run(fail)
    second = Walk(tmp_path)
    second.run.resume()
    assert second.run.step == 2


def test_another_configuration_is_refused_by_field_and_values(tmp_path: Path) -> None:
    Walk(tmp_path).run.save()
    with pytest.raises(ValueError, match=r"rate was 0\.1 and is 0\.2"):
        Walk(tmp_path, rate=0.2).run.resume()
    assert Walk(tmp_path, num_steps=99).run.resume()


def test_a_new_run_has_nothing_to_resume(tmp_path: Path) -> None:
    assert not Walk(tmp_path).run.resume()


def test_the_curve_is_written_for_people_and_tensorboard(tmp_path: Path) -> None:
    walk = Walk(tmp_path, num_steps=50)
    walk.run.run(walk.train_step, evaluate=lambda: {"loss/held_out": 1.0}, evaluate_seconds=0)
    rows = (tmp_path / "walk.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "step,seconds,name,value"
    assert sum(",loss/train," in row for row in rows) == 2
    assert any(",loss/held_out,1.00000" in row for row in rows)
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))


def test_a_missing_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device"):
        pick_device("cuda")
    assert pick_device("cpu").type == "cpu"
