"""A runner of commands that tells standard error from standard output, whatever click there is."""

from __future__ import annotations

import inspect

from typer.testing import CliRunner


def command_runner() -> CliRunner:
    """click 8.2 keeps both apart by itself; 8.1, which the lowest typer takes, has to be told."""
    told = "mix_stderr" in inspect.signature(CliRunner.__init__).parameters
    return CliRunner(**({"mix_stderr": False} if told else {}))
