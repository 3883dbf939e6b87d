"""How good pictures are, mode by mode: do they show what the caption says, and are they as good as the cloud's own?

Flows in: pictures of several modes for the same captions and seeds, and `Judges`. Flows out: a `QualityReport`. Knows
nothing of how the pictures were drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciar.benchmarks.evaluation.distances import (
    Features,
    Ratio,
    bootstrap_ratio,
    frechet_distance,
    kernel_distance,
    least_samples,
    principal_basis,
)
from ciar.benchmarks.evaluation.features import INPUT_SIZE, NETWORK, NUM_FEATURES, features_of, load_network
from ciar.benchmarks.evaluation.judges import NUM_CANDIDATES, HeldOut, Judges, Labels, recall
from ciar.benchmarks.evaluation.pixels import Pictures, paint
from ciar.shared.errors import InvalidRequest
from ciar.training.dataset import SPLITS, Dataset

BASE = "cloud"
NUM_DIRECTIONS = 64
"""Dimensions of the Fréchet distance: a covariance in all 1280 would need thousands of pictures."""
NUM_RESAMPLES = 300
PIXEL_LEVELS, PICTURE_SHARE = 48, 0.01
"""A pixel differs visibly if a channel differs by more than 48 of 255; a picture, if more than 1 % of its pixels do (41
of 4096, between two and three tokens' worth). Ours."""


@dataclass(frozen=True)
class ModeQuality:
    """The figures of one mode; shares are of its pictures."""

    mode: str
    num_pictures: int
    ground_right: float
    foreground_right: float
    style_right: float
    """Filled or outline, as the pixels of the reading tell."""
    all_right: float
    """All three at once."""
    concept_top1: float
    concept_top5: float
    frechet: float
    """Squared Fréchet distance to the reference drawings, in `num_directions` principal directions."""
    kernel: float
    """Unbiased kernel distance (KID, degree 3) to the reference drawings, in all features."""
    frechet_to_base: float
    kernel_to_base: float
    """The same distances to the base's own pictures."""
    similarity: float
    """Mean cosine of picture and caption."""
    recall: float
    """Share whose own caption beats 99 others, in each of which about half of the words are replaced."""
    pixel_difference: float
    """Mean absolute difference to the base's picture of the same seed, in levels of 255."""
    differing: float
    """Share that differs visibly from it: more than 1 % of the pixels by more than 48 levels."""
    frechet_ratio: Ratio
    """Over the base's; below 1 is nearer to the reference."""
    similarity_ratio: Ratio
    recall_ratio: Ratio


@dataclass(frozen=True)
class QualityReport:
    """All modes, and what is needed to read their figures."""

    base: str
    network: str
    num_pictures: int
    num_captions: int
    num_directions: int
    explained: float
    """Share of the reference's variance in those directions."""
    held_out_share: float
    """Share of reference pictures that are held-out drawings; the others are training drawings of the same concept."""
    floor_frechet: float
    floor_kernel: float
    """Distances of training drawings of the same captions to the reference: what good pictures can reach."""
    judges: HeldOut
    """The judges on held-out drawings: the ceiling of what they can find in generated pictures."""
    modes: tuple[ModeQuality, ...]

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types, to six digits; what could not be computed is None."""
        return _plain(asdict(self))

    def markdown(self) -> list[str]:
        """Two tables and what they mean, line by line."""
        return [*self._says(), "", *self._near(), "", *self._notes()]

    def _says(self) -> Iterator[str]:
        yield "| mode | ground | colour | style | all three | concept top-1 | top-5 | caption cosine | recall@1 |"
        yield "|---|" + "---:|" * 8
        for m in self.modes:
            shares = (m.ground_right, m.foreground_right, m.style_right, m.all_right, m.concept_top1, m.concept_top5)
            yield f"| {m.mode} | {_shares(*shares)} | {m.similarity:.3f} | {m.recall:.1%} |"
        held = self.judges
        yield (
            f"| *held-out drawings* | {held.ground_right:.1%} | {held.foreground_right:.1%} | {held.style_right:.1%} | "
            f"{held.all_right:.1%} | {_shares(held.concept_top1, held.concept_top5)} | {held.similarity:.3f} | "
            f"{held.recall:.1%} |"
        )

    def _near(self) -> Iterator[str]:
        yield (
            f"| mode | Fréchet | over {self.base} | kernel ×1000 | Fréchet to {self.base} | kernel ×1000 | "
            f"pixel difference | differ visibly | cosine over {self.base} | recall over {self.base} |"
        )
        yield "|---|" + "---:|" * 9
        for m in self.modes:
            yield (
                f"| {m.mode} | {m.frechet:.2f} | {m.frechet_ratio} | {1e3 * m.kernel:.2f} | {m.frechet_to_base:.2f} | "
                f"{1e3 * m.kernel_to_base:.2f} | {m.pixel_difference:.1f} | {m.differing:.1%} | {m.similarity_ratio} | "
                f"{m.recall_ratio} |"
            )
        yield (f"| *training drawings* | {self.floor_frechet:.2f} | – | {1e3 * self.floor_kernel:.2f} |" + " – |" * 6)

    def _notes(self) -> Iterator[str]:
        yield (
            f"{self.num_pictures} pictures a mode, of {self.num_captions} captions, and as many reference pictures: "
            f"drawings of the same concept and style (the other style, if this one was never drawn) in the same "
            f"colours, {self.held_out_share:.0%} of them held out from training, the others not. Features: "
            f"{self.network}, pooled penultimate layer, pictures scaled to {INPUT_SIZE} pixels. Fréchet distances "
            f"(squared) in the reference's {self.num_directions} principal directions ({self.explained:.0%} of its "
            f"variance): to be compared within a report, not with published FIDs; they shrink as pictures are added. "
            f"Kernel distances: unbiased, all {NUM_FEATURES} features. Intervals: 95 %, bootstrap over captions. "
            f"Recall@1 among {NUM_CANDIDATES} captions; in the wrong ones about half of the words are replaced. A "
            f"picture differs visibly if more than {PICTURE_SHARE:.0%} of its pixels differ by more than "
            f"{PIXEL_LEVELS} of 255 from the picture of {self.base} for the same seed."
        )


def judge_pictures(
    pictures: Mapping[str, Pictures],
    labels: Labels,
    judges: Judges,
    *,
    base: str = BASE,
    num_directions: int = NUM_DIRECTIONS,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> QualityReport:
    """Judge every mode's pictures (N, 64, 64, 3), row i of every mode drawn for labels[i] and the same seed.

    labels: (N, 4) concept, style, foreground and ground, indices as in training. Raises InvalidRequest if `base` is not
    among the modes, if shapes or labels do not fit, or if N is less than 2 `num_directions`.
    """
    _require_fitting(pictures, labels, judges, base, num_directions)
    rng = np.random.default_rng(seed)
    reference, held_out_share = reference_drawings(judges.data, labels, rng, held_out=True)
    others, _ = reference_drawings(judges.data, labels, rng, held_out=False)
    network = load_network()
    reference_features, floor_features = features_of(network, reference), features_of(network, others)
    features = {mode: features_of(network, shown) for mode, shown in pictures.items()}
    basis = principal_basis(reference_features, num_directions)
    _, clusters = np.unique(labels, axis=0, return_inverse=True)
    candidates = judges.candidates(labels, seed)
    views = {
        mode: _View(shown, features[mode], basis(features[mode]), judges.similarities(shown, candidates))
        for mode, shown in pictures.items()
    }
    compared = _Comparison(reference_features, basis(reference_features), clusters.reshape(-1), num_resamples, seed)
    return QualityReport(
        base=base,
        network=NETWORK,
        num_pictures=len(labels),
        num_captions=int(clusters.max()) + 1,
        num_directions=num_directions,
        explained=basis.explained,
        held_out_share=held_out_share,
        floor_frechet=frechet_distance(basis(floor_features), basis(reference_features)),
        floor_kernel=kernel_distance(floor_features, reference_features),
        judges=judges.held_out,
        modes=tuple(_judge(mode, view, views[base], labels, judges, compared) for mode, view in views.items()),
    )


@dataclass(frozen=True)
class _View:
    """One mode's pictures and what the networks see in them."""

    pictures: Pictures
    features: Features  # (N, 1280)
    projected: Features  # (N, D)
    cosines: NDArray[np.float64]  # (N, K), [:, 0] with the right caption


@dataclass(frozen=True)
class _Comparison:
    """What all modes are compared with, and how intervals are drawn."""

    reference: Features  # (N, 1280)
    projected: Features  # (N, D)
    clusters: NDArray[np.int64]  # (N,) caption
    num_resamples: int
    seed: int


def _judge(mode: str, view: _View, base: _View, labels: Labels, judges: Judges, compared: _Comparison) -> ModeQuality:
    right, coverage = judges.read(view.pictures, labels)  # (N, 3), (N, 64, 64)
    ranks = judges.concept_ranks(coverage, labels[:, 0])
    change = np.abs(view.pictures.astype(np.int64) - base.pictures)  # (N, 64, 64, 3)
    visible = (change.max(-1) > PIXEL_LEVELS).mean((1, 2)) > PICTURE_SHARE  # (N,)

    def frechet(of: _View, rows: NDArray[np.int64]) -> float:
        return frechet_distance(of.projected[rows], compared.projected[rows])

    def ratio(figure: Callable[[_View, NDArray[np.int64]], float]) -> Ratio:
        return bootstrap_ratio(
            lambda rows: figure(view, rows),
            lambda rows: figure(base, rows),
            compared.clusters,
            compared.num_resamples,
            np.random.default_rng(compared.seed),
        )

    everything = np.arange(len(labels))
    return ModeQuality(
        mode=mode,
        num_pictures=len(labels),
        ground_right=float(right[:, 2].mean()),
        foreground_right=float(right[:, 1].mean()),
        style_right=float(right[:, 0].mean()),
        all_right=float(right.all(1).mean()),
        concept_top1=float((ranks < 1).mean()),
        concept_top5=float((ranks < 5).mean()),
        frechet=frechet(view, everything),
        kernel=kernel_distance(view.features, compared.reference),
        frechet_to_base=frechet_distance(view.projected, base.projected),
        kernel_to_base=kernel_distance(view.features, base.features),
        similarity=float(view.cosines[:, 0].mean()),
        recall=recall(view.cosines),
        pixel_difference=float(change.mean()),
        differing=float(visible.mean()),
        frechet_ratio=ratio(frechet),
        similarity_ratio=ratio(lambda of, rows: float(of.cosines[rows, 0].mean())),
        recall_ratio=ratio(lambda of, rows: recall(of.cosines[rows])),
    )


def reference_drawings(
    data: Dataset, labels: Labels, rng: np.random.Generator, *, held_out: bool
) -> tuple[Pictures, float]:
    """One drawing of each label's concept and style in its colours: (N, 64, 64, 3), and the share that is held out.

    Wanted are held-out drawings (or training drawings, if not `held_out`); where there is none, one of the other split
    serves, and where the style was never drawn, one of the concept's other style.
    """
    is_train = data.split == SPLITS.index("train")
    wanted = ~is_train if held_out else is_train
    rows = np.array([_drawing_of(data, concept, style, wanted, rng) for concept, style in labels[:, :2]])
    return paint(data.masks[rows], labels[:, 2], labels[:, 3]), float((~is_train[rows]).mean())


def _drawing_of(data: Dataset, concept: int, style: int, wanted: NDArray[np.bool_], rng: np.random.Generator) -> int:
    """A row of the concept: of the wanted split and style if there is one, else of the style, else any."""
    mine = data.concept == concept
    choices = (mine & wanted & (data.style == style), mine & (data.style == style), mine & wanted, mine)
    rows = next(np.flatnonzero(choice) for choice in choices if choice.any())
    return int(rng.choice(rows))


def _require_fitting(
    pictures: Mapping[str, Pictures], labels: Labels, judges: Judges, base: str, num_directions: int
) -> None:
    if base not in pictures:
        raise InvalidRequest(f"pictures: the base {base!r} is not among the modes {', '.join(pictures)}")
    if len(labels) < least_samples(num_directions):
        raise InvalidRequest(
            f"pictures: {len(labels)} a mode are too few for a Fréchet distance in {num_directions} dimensions; "
            f"draw at least {least_samples(num_directions)}"
        )
    if labels.ndim != 2 or labels.shape[1] != 4 or (labels < 0).any() or (labels >= judges.sizes).any():
        raise InvalidRequest(
            "labels: must be (N, 4), indices below "
            f"{', '.join(map(str, judges.sizes))}; the pair's vocabulary must be that of the prepared data"
        )
    shape = (len(labels), *judges.data.masks.shape[1:], 3)
    for mode, shown in pictures.items():
        if shown.shape != shape or shown.dtype != np.uint8:
            raise InvalidRequest(f"pictures: those of {mode} are {shown.dtype} {shown.shape}, must be uint8 {shape}")


def _shares(*shares: float) -> str:
    return " | ".join(f"{share:.1%}" for share in shares)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
