"""The `ciar` command. Each subcommand lives in the product it belongs to and is imported when it is called, so that a
device without torch has the device's commands, and a server without onnxruntime the server's.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

try:
    import typer
    from typer.core import TyperGroup
except ModuleNotFoundError as error:
    # The console script comes with `ciar` itself; what it is made of is an extra.
    print(f"ciar: the commands need {error.name}, which is not installed: pip install 'ciar[cli]'", file=sys.stderr)
    raise SystemExit(2) from None

_BENCH, _MEASURE = "ciar-cloud[bench]", "ciar-cloud[bench,train]"

COMMANDS = {
    "generate": ("ciar.device_client.cli:generate", "ciar[cli]", "Generate a picture from a prompt."),
    "info": ("ciar.device_client.cli:info", "ciar[cli]", "Show what a server or a bundle offers."),
    "serve": ("ciar.cloud_server.cli:serve", "ciar-cloud", "Serve a bundle's cloud model over gRPC."),
    "health": ("ciar.cloud_server.cli:health", "ciar-cloud", "Ask a server for its health (for containers)."),
    "bench": ("ciar.benchmarks.cli:bench", _BENCH, "Measure latency: every method, several networks."),
    "bench-sweep": (
        "ciar.benchmarks.sweeps_cli:bench_sweep",
        "ciar-cloud[bench]",
        "Measure latency: one knob over its range.",
    ),
    "bench-scale": (
        "ciar.benchmarks.scale.cli:bench_scale",
        "ciar-cloud[bench,train]",
        "Measure latency at the paper's scale.",
    ),
    "evaluate": (
        "ciar.benchmarks.evaluation.cli:evaluate",
        "ciar-cloud[bench,train]",
        "Judge a pair: gate, intervals, pictures.",
    ),
    "train": (
        "ciar.training.cli:app",
        "ciar-cloud[train]",
        "Train a bundle: data, tokenizer, cloud model, drafter, export.",
    ),
}
"""Name -> (function or app, the distribution that brings it, help)."""


class LazyGroup(TyperGroup):
    """A group whose commands are imported one at a time."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        target, distribution, _ = COMMANDS[cmd_name]
        module, _, attribute = target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            typer.echo(
                f"ciar: `ciar {cmd_name}` needs {error.name}, which is not installed: pip install '{distribution}'",
                err=True,
            )
            raise typer.Exit(2) from error
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        single = typer.Typer(add_completion=False)
        single.command(name=cmd_name)(found)
        return typer.main.get_command(single)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


app = typer.Typer(cls=LazyGroup, add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def _root() -> None:
    """CIAR: generate pictures with an autoregressive model split between a cloud and a device."""


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="ciar")
