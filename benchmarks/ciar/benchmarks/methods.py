"""The rows of the benchmark: each a name, a mode of the SDK and its settings. None has a decoding loop of its own.

`find_method("ciar")`, or with a number of its own: "ciar:0.1" (share asked), "code:0.5" (share that the cloud writes),
"sets:16" (k), "certified:4" (budget ε).

One share for all gates: CIAR has its threshold from the manifest, as every user of the SDK, and asks more of hard
pictures and less of easy ones than of the held-out captions there. Every other gate with a share asks about as many
tokens as CIAR does on the calibration pictures, not about the share that was named. A threshold carries that over to
easier and harder pictures; random and paper ask the same share of each, so they ask more than CIAR of easier ones.
"""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ciar.benchmarks.gates import (
    Doubt,
    DoubtThreshold,
    ambiguity,
    entropy,
    margin,
    max_probability,
    outside_set,
    random_doubt,
    uncertainty,
)
from ciar.device_client import Client, Gate, Mode, Progress, Result, make_gate
from ciar.device_client.gates import CalibratedThreshold, RunningQuantile
from ciar.shared.bundle import Manifest
from ciar.shared.errors import InvalidRequest

BASE = "cloud-window-1"
"""The row that all others are compared to: one pass a token."""

STRONGEST = "cloud"
"""The strongest opponent: the cloud alone, exactly the same picture, without any device."""

CIAR = "ciar"
"""The row whose share the other gates take."""

UNIFORM = tuple(np.linspace(0, 1, 101).tolist())


@dataclass(frozen=True)
class Setting:
    """What gates are made for."""

    manifest: Manifest
    verify_share: float
    """Share of the held-out tokens that CIAR's threshold asks about."""
    priors: Mapping[str, Sequence[float]]
    """What a calibration run saw: each method's doubts, ascending, by the method's name; by `CIAR`, those of U."""

    def matched_share(self, share: float) -> float:
        """Share of the calibration run that CIAR asks about with its threshold for `share` of the held-out tokens."""
        threshold = CalibratedThreshold(share, self.manifest.uncertainty_quantiles).threshold
        seen = self.priors[CIAR]
        return (len(seen) - bisect.bisect_right(seen, threshold)) / len(seen)


@dataclass(frozen=True)
class Method:
    """One row. Gates have a state, so one is made for each picture."""

    name: str
    mode: Mode
    about: str
    gate: Callable[[Setting, int], Gate] | None = None
    """(setting, seed of the picture) -> a fresh gate; None where the mode has none to choose."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More of `Client.generate`'s arguments."""
    doubt: Doubt | None = None
    """What a calibration run must see first; U for a gate that needs its share alone."""

    def draw(
        self,
        client: Client,
        prompt: str,
        seed: int,
        setting: Setting,
        *,
        timeout_s: float,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Result:
        """One picture by this method. Raises what `Client.generate` raises."""
        gate = None if self.gate is None else self.gate(setting, seed)
        return client.generate(
            prompt,
            seed=seed,
            mode=self.mode,
            gate=gate,
            timeout_s=timeout_s,
            on_progress=on_progress,
            **self.settings,
        )


def _one_pass_a_token(name: str, number: float | None) -> Method:
    return Method(name, Mode.CLOUD, "the cloud alone, one pass a token: the base", settings={"max_window": 1})


def _cloud(name: str, number: float | None) -> Method:
    return Method(name, Mode.CLOUD, "the cloud alone, windows of its own guesses: the same picture")


def _lossless(name: str, number: float | None) -> Method:
    return Method(name, Mode.LOSSLESS, "the cloud verifies all, drafts are its first guesses: the same picture")


def _code(name: str, number: float | None) -> Method:
    """CoDe (Chen et al., CVPR 2025) splits the scales of a VAR model between a large drafter and a small refiner. For a
    raster model we read it as the paper's row does ("N = 0.3"): the cloud writes that share, the drafter all the rest.
    """
    rate = 0.3 if number is None else number
    return Method(
        name, Mode.DEVICE, f"the cloud writes {rate:.0%}, the device the rest unasked", None, {"prefix_rate": rate}
    )


def _device(name: str, number: float | None) -> Method:
    return Method(
        name, Mode.DEVICE, "the device drafts every token, no prefix, no question", None, {"prefix_rate": 0.0}
    )


def _ciar(name: str, number: float | None) -> Method:
    return Method(name, Mode.CIAR, "asks where U is above a calibrated threshold", _calibrated(number))


def _paper(name: str, number: float | None) -> Method:
    """The paper's dynamic threshold as we read it: the most uncertain tokens of each picture, by a running quantile."""

    def gate(setting: Setting, _seed: int) -> Gate:
        return RunningQuantile(_matched(setting, number), setting.priors[CIAR])

    about = "asks about each picture's widest intervals by U: the same share of all"
    return Method(name, Mode.CIAR, about, gate, doubt=uncertainty)


def _nearby(name: str, number: float | None) -> Method:
    """Thresholds for the pair's share and, beside verified tokens, four times as much."""

    def gate(setting: Setting, _seed: int) -> Gate:
        share = _share(setting, number)
        return make_gate(f"nearby:{share:g}:{min(1.0, 4 * share):g}", setting.manifest)

    return Method(name, Mode.CIAR, "as ciar, with a lower threshold beside verified tokens: fewer forks", gate)


def _ambiguity(name: str, number: float | None) -> Method:
    return _doubting(name, ambiguity, "asks where Ω alone is above a calibrated threshold", number)


def _certified(name: str, number: float | None) -> Method:
    """Without a number, ε is what the tokens of narrow intervals outside the asked share cost on held-out captions.

    CIAR spends as much there. The share asked is about CIAR's, but not calibrated to it: it depends on the order.
    """

    def gate(setting: Setting, _seed: int) -> Gate:
        manifest, kept_share = setting.manifest, 1 - setting.verify_share
        quantiles = manifest.ambiguity_quantiles
        kept = np.interp(np.linspace(0, kept_share, 101), np.linspace(0, 1, len(quantiles)), quantiles)  # (101,) Ω
        budget = kept_share * manifest.num_tokens * float(kept.mean()) / 2 if number is None else number
        return make_gate(f"certified:{budget:.6g}", manifest)

    return Method(name, Mode.CIAR, "spends a budget ε on Σ Ω/2, asks about the rest", gate)


def _random(name: str, number: float | None) -> Method:
    def gate(setting: Setting, seed: int) -> Gate:
        order = random_doubt(seed, setting.manifest.num_tokens)
        return DoubtThreshold(name, order, _matched(setting, number), UNIFORM)

    return Method(name, Mode.CIAR, "asks at random, the same share of each picture", gate, doubt=uncertainty)


def _sets(name: str, number: float | None) -> Method:
    size = 10 if number is None else int(number)
    if size < 1:
        raise InvalidRequest(f"method: the k of sets must be at least 1 (got {number:g})")
    return _doubting(name, outside_set(size), f"asks where the {size} likeliest tokens hold little mass", None)


def _entropy(name: str, number: float | None) -> Method:
    return _doubting(name, entropy, "asks where the drafter's entropy is large", number)


def _max_probability(name: str, number: float | None) -> Method:
    return _doubting(name, max_probability, "asks where the likeliest token is unlikely (SoftmaxCorr)", number)


def _margin(name: str, number: float | None) -> Method:
    return _doubting(name, margin, "asks where the two likeliest tokens are close", number)


def _doubting(name: str, doubt: Doubt, about: str, share: float | None) -> Method:
    def gate(setting: Setting, _seed: int) -> Gate:
        return DoubtThreshold(name, doubt, _matched(setting, share), setting.priors[name])

    return Method(name, Mode.CIAR, about, gate, doubt=doubt)


def _calibrated(share: float | None) -> Callable[[Setting, int], Gate]:
    return lambda setting, _seed: make_gate(f"calibrated:{_share(setting, share):g}", setting.manifest)


def _share(setting: Setting, own: float | None) -> float:
    return setting.verify_share if own is None else own


def _matched(setting: Setting, own: float | None) -> float:
    return setting.matched_share(_share(setting, own))


_MAKERS: dict[str, tuple[Callable[[str, float | None], Method], float]] = {
    BASE: (_one_pass_a_token, -1),
    STRONGEST: (_cloud, -1),
    "lossless": (_lossless, -1),
    "code": (_code, 1),
    CIAR: (_ciar, 1),
    "nearby": (_nearby, 1),
    "paper": (_paper, 1),
    "ambiguity": (_ambiguity, 1),
    "certified": (_certified, 1e9),
    "random": (_random, 1),
    "entropy": (_entropy, 1),
    "max-probability": (_max_probability, 1),
    "margin": (_margin, 1),
    "sets": (_sets, 1e9),
    "device": (_device, -1),
}
"""Name -> (maker, largest number it takes; −1: none)."""

METHODS = tuple(_MAKERS)
QUICK_METHODS = (BASE, STRONGEST, "lossless", "ciar", "entropy", "device")


def find_method(spec: str) -> Method:
    """A method from its name and, after a colon, its number. Raises InvalidRequest that names the nearest."""
    name, colon, text = spec.strip().lower().partition(":")
    if name not in _MAKERS:
        nearest = difflib.get_close_matches(name, _MAKERS, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(_MAKERS)}"
        raise InvalidRequest(f"method: unknown method {name!r}; {hint}")
    maker, largest = _MAKERS[name]
    if not colon:
        return maker(name, None)
    if largest < 0:
        raise InvalidRequest(f"method: {name} takes no number (got {spec!r})")
    try:
        number = float(text)
    except ValueError:
        raise InvalidRequest(f"method: {text!r} in {spec!r} is not a number") from None
    if not 0 <= number <= largest:
        raise InvalidRequest(f"method: the number of {name} must be in [0, {largest:g}] (got {text})")
    return maker(f"{name}:{number:g}", number)
