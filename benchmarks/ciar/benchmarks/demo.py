"""`make demo`: the main job, seen working. A server process, this device process, a handful of prompts.

In: the embedded bundle. Out: out/demo.png (for the same seed: the cloud's own picture, the collaboration's, and who
decided each token), one table and one JSON line. Every prompt is generated in every way in turn, so that noise hits
all alike; ratios are taken prompt by prompt within the run.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ciar.device_client import Client, Decision, LocalServer, Mode, Result, heatmap
from ciar.device_client.heatmap import COLOURS, LABELS

PROMPTS = (
    "red filled heart on cream",
    "yellow filled star on sky",
    "green outline leaf on white",
    "blue filled cloud on white",
    "purple outline bell on mint",
    "black filled key on lavender",
    "orange filled flame on cream",
    "pink outline crown on gray",
)
SEED = 7
BASE = "one pass a token"
WAYS: dict[str, dict[str, Any]] = {
    BASE: {"mode": Mode.CLOUD, "max_window": 1},
    **{mode.value: {"mode": mode} for mode in (Mode.CLOUD, Mode.LOSSLESS, Mode.CIAR, Mode.DEVICE)},
}
"""Name -> arguments of `Client.generate`."""

OUT = Path("out")
TILE = 192
"""Side of a picture in demo.png, in pixels."""


@dataclass(frozen=True)
class Row:
    """One way over all prompts."""

    name: str
    results: Sequence[Result]
    base: Sequence[Result]
    """The cloud alone, one pass a token, same prompts and seeds."""

    @property
    def seconds(self) -> list[float]:
        return [result.timings.total_s for result in self.results]

    @property
    def speed_ratios(self) -> list[float]:
        """One pass a token over this way, prompt by prompt."""
        return [
            base.timings.total_s / result.timings.total_s for base, result in zip(self.base, self.results, strict=True)
        ]

    def share(self, *decisions: Decision) -> float:
        """Share of all tokens with one of these decisions."""
        counts = [sum(map(result.decisions.count, decisions)) / len(result.decisions) for result in self.results]
        return statistics.mean(counts)

    def mean(self, name: str) -> float:
        """Mean of a traffic figure."""
        return statistics.mean(getattr(result.traffic, name) for result in self.results)

    @property
    def agreement(self) -> float:
        """Share of positions at which the token is the cloud's own."""
        return statistics.mean(
            sum(a == b for a, b in zip(result.tokens, base.tokens, strict=True)) / len(base.tokens)
            for base, result in zip(self.base, self.results, strict=True)
        )

    def figures(self) -> dict[str, float | str]:
        """All figures of the table, for machines."""
        num_tokens = len(self.results[0].tokens)
        return {
            "mode": str(self.name),
            "seconds_median": statistics.median(self.seconds),
            "seconds_min": min(self.seconds),
            "seconds_max": max(self.seconds),
            "speed_ratio_median": statistics.median(self.speed_ratios),
            "speed_ratio_min": min(self.speed_ratios),
            "speed_ratio_max": max(self.speed_ratios),
            "share_prefix": self.share(Decision.PREFIX, Decision.CLOUD),
            "share_local": self.share(Decision.LOCAL),
            "share_accepted": self.share(Decision.ACCEPTED),
            "share_resampled": self.share(Decision.RESAMPLED),
            "requests_over_tokens": self.mean("num_requests") / num_tokens,
            "sent_over_tokens": self.mean("num_sent_to_verify") / num_tokens,
            "bytes_up": self.mean("bytes_up"),
            "bytes_down": self.mean("bytes_down"),
            "agreement": self.agreement,
            "cloud_forward_seconds": statistics.mean(result.cost.forward_ns / 1e9 for result in self.results),
        }


def main() -> None:
    """Generate, write out/demo.png, print the tables and the JSON line."""
    console = Console()
    OUT.mkdir(exist_ok=True)
    with LocalServer(arguments=("--threads", "1")) as server, Client(server.address) as client:
        console.print(f"cloud: a process of its own at {server.address}; device: process {os.getpid()}")
        client.generate(PROMPTS[0], seed=SEED)  # loads the graphs, fills caches
        results: dict[str, list[Result]] = {name: [] for name in WAYS}
        for prompt in track(PROMPTS, description="generating", console=console, transient=True):
            for name, settings in WAYS.items():
                results[name].append(client.generate(prompt, seed=SEED, **settings))
    rows = {name: Row(name, results[name], results[BASE]) for name in WAYS}
    sheet(results[Mode.CLOUD], results[Mode.CIAR]).save(OUT / "demo.png")
    for table in tables(list(rows.values())):
        console.print(table)
    console.print(
        f"{len(PROMPTS)} prompts, seed {SEED}, in turn; medians over prompts, means of traffic and shares; loopback, "
        f"{os.cpu_count()} cores, {platform.machine()}; one thread for the server's passes, one for the device's graph."
    )
    console.print(f"picture: {OUT / 'demo.png'}")
    print(json.dumps({"prompts": PROMPTS, "seed": SEED, "rows": [row.figures() for row in rows.values()]}))
    for name in (Mode.CLOUD, Mode.LOSSLESS):
        if rows[name].agreement < 1 and not any(result.near_ties for result in results[name]):
            sys.exit(f"{name} differs from one pass a token without a near tie: this is a bug, please report it")


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """The figures for people, each table narrow enough for a terminal of 80 columns."""
    figures = [row.figures() for row in rows]
    yield _table(
        "Time and traffic of a picture",
        ("mode", "seconds", "min–max", "speed-up", "min–max", "KB up", "down", "same"),
        [
            (
                f"{f['mode']}",
                f"{f['seconds_median']:.2f}",
                f"{f['seconds_min']:.2f}–{f['seconds_max']:.2f}",
                f"{f['speed_ratio_median']:.2f}×",
                f"{f['speed_ratio_min']:.2f}–{f['speed_ratio_max']:.2f}",
                f"{float(f['bytes_up']) / 1024:.1f}",
                f"{float(f['bytes_down']) / 1024:.1f}",
                f"{f['agreement']:.1%}",
            )
            for f in figures
        ],
    )
    shares = ("prefix", "local", "accepted", "resampled")
    yield _table(
        "Who decided, and what was sent, as shares of all tokens",
        ("mode", *shares, "requests", "sent to verify"),
        [
            (
                f"{f['mode']}",
                *(f"{f[f'share_{name}']:.0%}" for name in shares),
                f"{f['requests_over_tokens']:.0%}",
                f"{f['sent_over_tokens']:.0%}",
            )
            for f in figures
        ],
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    result = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    for index, column in enumerate(columns):
        result.add_column(column, justify="right" if index else "left")
    for row in rows:
        result.add_row(*row)
    return result


def sheet(base: Sequence[Result], collaboration: Sequence[Result]) -> Image.Image:
    """Two prompts a row, each as three tiles: cloud alone, collaboration, heat map; legend at the foot."""
    gap, label = 12, 26
    cell_width, cell_height = 3 * TILE + 4 * gap, TILE + label + gap
    num_rows = -(-len(PROMPTS) // 2)
    canvas = Image.new("RGB", (2 * cell_width, num_rows * cell_height + 3 * label + gap), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for column in range(2):
        for index, title in enumerate(("cloud alone", "collaboration (ciar)", "who decided")):
            pen.text((column * cell_width + gap + index * (TILE + gap), 6), title, fill="#555555", font=font)
    for index, (prompt, alone, together) in enumerate(zip(PROMPTS, base, collaboration, strict=True)):
        x, y = (index % 2) * cell_width + gap, (index // 2) * cell_height + label
        pen.text((x, y), f"“{prompt}”", fill="black", font=font)
        tiles = (
            alone.image.resize((TILE, TILE), Image.Resampling.NEAREST),
            together.image.resize((TILE, TILE), Image.Resampling.NEAREST),
            heatmap(together, width_px=TILE, legend=False),
        )
        for step, tile in enumerate(tiles):
            canvas.paste(tile, (x + step * (TILE + gap), y + label))
    x, y = gap, num_rows * cell_height + label + gap
    for decision in (Decision.PREFIX, Decision.LOCAL, Decision.ACCEPTED, Decision.RESAMPLED):
        pen.rectangle((x, y, x + 18, y + 18), fill=COLOURS[decision], outline="black")
        pen.text((x + 26, y), LABELS[decision], fill="black", font=font)
        x += 200
    return canvas


if __name__ == "__main__":
    main()
