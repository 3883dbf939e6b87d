"""Sweeps as data: one knob turned over its range, everything else as it is.

In: values for the knob, and networks. Out: a `Sweep`: methods and profiles for `bench.plan`, the place of each of their
rows on the x axis, and what to draw of them. Knows neither processes nor files; the sweep over vocabularies, which
measures no pictures, is in `sweeps_vocabulary`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ciar.benchmarks.figures import Row
from ciar.benchmarks.methods import BASE, STRONGEST, Method, find_method
from ciar.benchmarks.profiles import Latency, Profile, find_profile
from ciar.shared.errors import InvalidRequest

VOCABULARY = "vocabulary"


class Place(NamedTuple):
    """Where a row stands: on which line, and at which value of the knob (None: the knob does not touch it)."""

    series: str
    x: float | None


class Point(NamedTuple):
    """A measured row in its place."""

    place: Place
    row: Row


@dataclass(frozen=True)
class Figure:
    """One number of a row, and how it is written."""

    label: str
    of: Callable[[Row], float | None]
    form: Callable[[float], str]


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _ms(value: float) -> str:
    return f"{value:.0f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}×"


def _count(value: float) -> str:
    return f"{value:.1f}"


FIGURES = {
    "time": Figure("ms a picture", lambda row: 1000 * row.seconds.p50, _ms),
    "speed-up": Figure("speed-up over one pass a token", lambda row: row.speed_up and row.speed_up.p50, _ratio),
    "preview": Figure("ms to the first final tokens", lambda row: 1000 * row.preview_s, _ms),
    "requests": Figure("requests, share of T", lambda row: row.requests_share, _percent),
    "verified": Figure("tokens verified, share of T", lambda row: row.verified_share, _percent),
    "local": Figure("tokens decided alone, share of T", lambda row: row.local_share, _percent),
    "forks": Figure("forks", lambda row: row.num_forks, _count),
    "dropped": Figure("tokens drafted in vain", lambda row: row.num_discarded, _count),
    "cloud": Figure("cloud compute over the base's", lambda row: row.cloud_compute_ratio, _ratio),
    "B/token": Figure("bytes a token, both ways", lambda row: row.bytes_per_token, _count),
    "agree": Figure("share of tokens equal to the base's", lambda row: row.agreement, _percent),
}
"""By the name of their column."""

X = "x"
"""In a panel: the knob itself."""


class Panel(NamedTuple):
    """One plot: figures by name, or `X`."""

    x: str
    y: str


@dataclass(frozen=True)
class Sweep:
    """One knob turned."""

    name: str
    question: str
    """What it answers."""
    x_label: str
    methods: Mapping[str, Method]
    """By name, the base first."""
    profiles: Mapping[str, Profile]
    places: Mapping[tuple[str, str], Place]
    """(profile, method) -> place."""
    columns: tuple[str, ...]
    """Names of `FIGURES`."""
    panels: tuple[Panel, ...]
    finds_crossing: bool = False
    """Whether to say where each line falls below a speed-up of 1."""

    @property
    def plan_rows(self) -> dict[str, list[str]]:
        """Methods of each profile, for `bench.plan`."""
        return {profile: list(self.methods) for profile in self.profiles}

    def points(self, rows: Sequence[Row]) -> list[Point]:
        """Measured rows in their places, line by line in the order of the sweep, each by x."""
        order = {key: index for index, key in enumerate(self.places)}
        points = [
            Point(self.places[row.profile, row.method], row)
            for row in sorted(rows, key=lambda row: order[row.profile, row.method])
        ]
        lines = list(dict.fromkeys(point.place.series for point in points))
        return sorted(
            points, key=lambda p: (lines.index(p.place.series), -math.inf if p.place.x is None else p.place.x)
        )


def crossing(points: Sequence[tuple[float, float]], level: float = 1.0) -> float | None:
    """Where a line through (x, y), x ascending, first falls below `level`, by linear interpolation; None: nowhere.

    A line that begins below it gives its first x.
    """
    if points and points[0][1] < level:
        return points[0][0]
    for (x0, y0), (x1, y1) in pairwise(points):
        if y1 < level <= y0:
            return x0 + (x1 - x0) * (y0 - level) / (y0 - y1)
    return None


def crossings(points: Sequence[Point]) -> dict[str, str]:
    """For each line but the base's: up to which x it is as fast as the cloud alone, in words."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for (series, x), row in points:
        if x is not None and row.speed_up is not None and row.method != BASE:
            lines.setdefault(series, []).append((x, row.speed_up.p50))
    found = {}
    for series, line in lines.items():
        at = crossing(line)
        if at is None:
            found[series] = f"not up to {line[-1][0]:g}"
        else:
            found[series] = f"{at:.1f}" if at > line[0][0] else f"from the first, {at:g}, on"
    return found


Maker = Callable[[Sequence[float], Sequence[Profile]], Sweep]


def _threshold(values: Sequence[float], profiles: Sequence[Profile]) -> Sweep:
    lines = {(gate, x): find_method(f"{gate}:{x:g}") for gate in ("ciar", "max-probability") for x in values}
    return _over_methods(
        "threshold",
        "How much speed does it cost to ask more often, and what does it buy?",
        "share asked about",
        lines,
        profiles,
        ("time", "speed-up", "requests", "verified", "forks", "cloud", "agree"),
        (Panel("requests", "speed-up"), Panel("requests", "agree"), Panel("agree", "speed-up")),
    )


def _prefix(values: Sequence[float], profiles: Sequence[Profile]) -> Sweep:
    lines = {("ciar", x): _with("ciar", f"prefix {x:g}", prefix_rate=x) for x in values}
    return _over_methods(
        "prefix",
        "How many tokens should the cloud write first (the paper's figure 3, by agreement in place of its FID)?",
        "prefix rate ρ",
        lines,
        profiles,
        ("time", "speed-up", "preview", "requests", "forks", "cloud", "agree"),
        (Panel(X, "speed-up"), Panel(X, "agree"), Panel(X, "preview")),
    )


def _window(values: Sequence[float], profiles: Sequence[Profile]) -> Sweep:
    question, label = "How many positions should one pass verify?", "positions in a pass, at most"
    modes = ("cloud", "lossless", "ciar")
    return _over_counts("window", question, label, "max_window", "a window is", values, profiles, modes)


def _ahead(values: Sequence[float], profiles: Sequence[Profile]) -> Sweep:
    question, label = "How many tokens past the final ones should the device draft?", "tokens drafted ahead"
    return _over_counts("ahead", question, label, "max_ahead", f"{label} are", values, profiles, ("ciar",))


def _over_counts(
    name: str,
    question: str,
    x_label: str,
    setting: str,
    subject: str,
    values: Sequence[float],
    profiles: Sequence[Profile],
    modes: Sequence[str],
) -> Sweep:
    """A count among the client's settings, in these modes; subject: of the sentence on bad values."""
    if not all(x >= 1 and x == int(x) for x in values):
        raise InvalidRequest(f"values: {subject} a whole number, at least 1")
    lines = {(mode, x): _with(mode, f"{name} {x:g}", **{setting: int(x)}) for mode in modes for x in values}
    columns = ("time", "speed-up", "requests", "dropped", "cloud", "B/token", "agree")
    panels = (Panel(X, "speed-up"), Panel(X, "requests"), Panel(X, "dropped"))
    return _over_methods(name, question, x_label, lines, profiles, columns, panels)


def _rtt(values: Sequence[float], profiles: Sequence[Profile]) -> Sweep:
    """profiles: not used, the round trips are the networks."""
    if not all(x >= 0 for x in values):
        raise InvalidRequest("values: a round trip is not negative")
    methods = {name: find_method(name) for name in (BASE, STRONGEST, "lossless", "ciar", "nearby", "device")}
    networks = {f"{x:g} ms": x for x in values}
    return Sweep(
        name="rtt",
        question="From which round trip on is each method slower than the cloud alone?",
        x_label="round trip, ms",
        methods=methods,
        profiles={name: _delay(name, x) for name, x in networks.items()},
        places={(name, method): Place(method, x) for method in methods for name, x in networks.items()},
        columns=("time", "speed-up", "preview", "requests", "dropped", "cloud", "agree"),
        panels=(Panel(X, "time"), Panel(X, "speed-up"), Panel(X, "preview")),
        finds_crossing=True,
    )


def _gates(values: Sequence[float], profiles: Sequence[Profile]) -> Sweep:
    """values: not used; sets of 3 and 9 of 512 tokens are the paper's 100 and 300 of 16 384."""
    names = (
        "random",
        "entropy",
        "max-probability",
        "margin",
        "sets:3",
        "sets:9",
        "ambiguity",
        "paper",
        "ciar",
    )
    methods = {name: find_method(name) for name in (BASE, *names)}
    return Sweep(
        name="gates",
        question="Which gate asks about the right tokens, all at the same share (the paper's gate ablation)?",
        x_label="gate",
        methods=methods,
        profiles={profile.name: profile for profile in profiles},
        places={
            (profile.name, method): Place(_line(method, profile, profiles), None)
            for profile in profiles
            for method in methods
        },
        columns=("time", "speed-up", "requests", "verified", "local", "forks", "cloud", "agree"),
        panels=(Panel("requests", "speed-up"), Panel("requests", "agree"), Panel("forks", "agree")),
    )


def _over_methods(
    name: str,
    question: str,
    x_label: str,
    lines: Mapping[tuple[str, float], Method],
    profiles: Sequence[Profile],
    columns: tuple[str, ...],
    panels: tuple[Panel, ...],
) -> Sweep:
    """A knob of the methods: lines (series, x) -> method, through each profile."""
    places = {}
    for profile in profiles:
        places[profile.name, BASE] = Place(_line(BASE, profile, profiles), None)
        for (series, x), method in lines.items():
            places[profile.name, method.name] = Place(_line(series, profile, profiles), x)
    methods = {method.name: method for method in (find_method(BASE), *lines.values())}
    networks = {profile.name: profile for profile in profiles}
    return Sweep(name, question, x_label, methods, networks, places, columns, panels)


def _line(series: str, profile: Profile, profiles: Sequence[Profile]) -> str:
    return series if len(profiles) == 1 else f"{series}, {profile.name}"


def _with(name: str, what: str, **settings: object) -> Method:
    """A method with other settings, and a name that tells them."""
    method = find_method(name)
    return dataclasses.replace(method, name=f"{name}, {what}", settings={**method.settings, **settings})


def _delay(name: str, rtt_ms: float) -> Profile:
    """A relay that adds a round trip and nothing else; 0 ms goes through a relay as well."""
    half = (Latency(latency_ms=rtt_ms / 2),)
    return Profile(name=name, up=half, down=half, source="nominal: latency alone")


class _Entry(NamedTuple):
    make: Maker
    values: tuple[float, ...]
    profiles: tuple[str, ...]


_ENTRIES = {
    "threshold": _Entry(_threshold, (0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6), ("loopback", "5g")),
    "prefix": _Entry(_prefix, (0, 0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3), ("loopback", "5g")),
    "window": _Entry(_window, (1, 2, 4, 8, 16, 32), ("loopback", "lan", "5g")),
    "ahead": _Entry(_ahead, (4, 8, 16, 32, 64, 128), ("lan", "5g")),
    "rtt": _Entry(_rtt, (0, 2, 5, 10, 20, 50, 100, 150), ()),
    "gates": _Entry(_gates, (), ("loopback",)),
}

SWEEPS = (*_ENTRIES, VOCABULARY)


def require_sweep(name: str) -> None:
    """Raises InvalidRequest that names the nearest."""
    if name not in SWEEPS:
        nearest = difflib.get_close_matches(name.lower(), SWEEPS, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(SWEEPS)}"
        raise InvalidRequest(f"sweep: unknown sweep {name!r}; {hint}")


def make_sweep(name: str, values: Sequence[float] | None = None, profiles: Sequence[str] | None = None) -> Sweep:
    """A sweep over pictures, with other values or networks (by name or JSON) than its own if given.

    Raises InvalidRequest for a value that the knob cannot take, or that the sweep has no use for.
    """
    require_sweep(name)
    make, own_values, own_profiles = _ENTRIES[name]
    if values and not own_values:
        raise InvalidRequest(f"values: sweep {name!r} turns no number")
    if profiles and not own_profiles:
        raise InvalidRequest(f"profile: the networks of sweep {name!r} are its round trips; give --values")
    chosen = sorted(set(values or own_values))
    if name == "prefix" and not all(0 <= x <= 1 for x in chosen):
        raise InvalidRequest("values: a prefix rate is in [0, 1]")
    return make(chosen, [find_profile(profile) for profile in dict.fromkeys(profiles or own_profiles)])
