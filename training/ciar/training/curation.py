"""Chooses the drawings that are worth learning from: style by pixels, then consensus within (concept, style).

Flows in: rendered `Drawing`s. Flows out: those kept, with their style. Knows nothing of colours or tokens.

Icon names are noisy: a "phone" may be a handset or a slab, a "check" may sit in a badge. Per (concept, style) the
densest neighbourhood of drawings is kept, so that the shape most artists agree on is the one that is learnt.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from ciar.training.icons import Drawing

STYLES = ("filled", "outline")


class CurationConfig(BaseModel):
    """How many drawings to keep and how alike they must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_share: float = Field(default=0.5, gt=0, le=1)
    """At most this share of a (concept, style) group is kept."""
    max_per_group: int = Field(default=24, gt=0)
    min_per_group: int = Field(default=6, gt=0)
    """Groups with fewer drawings are dropped."""
    min_cohesion: float = Field(default=0.62, ge=-1, le=1)
    """Mean pairwise correlation (blurred) that a kept group must reach."""
    duplicate_correlation: float = Field(default=0.99, gt=0, le=1)
    """Of two kept drawings that correlate more than this only one stays."""
    min_stroke: float = Field(default=3.0, ge=0)
    """Outline drawings with a thinner mean stroke, in pixels, are left out."""


@dataclass(frozen=True)
class Kept:
    """A drawing that passed, with the style read from its pixels."""

    drawing: Drawing
    style: str


def stroke_width(mask: np.ndarray) -> float:
    """Mean stroke width in pixels: twice the mean distance to the edge along the ridge. mask: uint8 (64, 64)."""
    distance = ndimage.distance_transform_edt(mask > 127)
    ridge = (distance == ndimage.maximum_filter(distance, 3)) & (distance > 0)
    return float(2.0 * distance[ridge].mean() - 1.0) if ridge.any() else 0.0


def thick_share(mask: np.ndarray, radius: float = 4.5) -> float:
    """Share of the ink that an opening by a disc of that radius leaves: 0 for strokes, towards 1 for solids."""
    ink = mask > 127
    core = ndimage.distance_transform_edt(ink) >= radius
    if not core.any():
        return 0.0
    opened = ndimage.distance_transform_edt(~core) < radius
    return float((opened & ink).sum() / ink.sum())


def style_of(mask: np.ndarray) -> str | None:
    """`filled`, `outline`, or None where the pixels do not tell."""
    share = thick_share(mask)
    if share >= 0.4:
        return "filled"
    return "outline" if share <= 0.12 else None


def similarity(masks: np.ndarray, blur: float) -> np.ndarray:
    """Correlation of blurred masks: (N, 64, 64) -> (N, N)."""
    soft = ndimage.gaussian_filter(masks.astype(np.float32), (0, blur, blur)) if blur else masks.astype(np.float32)
    flat = soft.reshape(len(masks), -1)
    flat = flat - flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6
    return flat @ flat.T


def drop_duplicates(masks: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of drawings that are not near-copies of an earlier one."""
    alike = similarity(masks, 0.7)
    kept: list[int] = []
    for i in range(len(masks)):
        if not kept or alike[i, kept].max() < threshold:
            kept.append(i)
    return np.asarray(kept)


def consensus(masks: np.ndarray, keep: int, blur: float = 1.8) -> tuple[np.ndarray, float]:
    """The `keep` drawings of the densest neighbourhood, most typical first, and their mean correlation."""
    alike = similarity(masks, blur)
    keep = min(keep, len(masks))
    density = np.sort(alike, axis=1)[:, -keep:].mean(1)
    chosen = np.argsort(-alike[density.argmax()])[:keep]
    for _ in range(3):  # move from the medoid's neighbours to the neighbours of their mean
        chosen = np.argsort(-alike[:, chosen].mean(1))[:keep]
    inner = alike[np.ix_(chosen, chosen)]
    cohesion = (inner.sum() - len(chosen)) / max(1, len(chosen) * (len(chosen) - 1))
    return chosen, float(cohesion)


def curate(
    drawings: list[Drawing], config: CurationConfig, left_out: frozenset[str] = frozenset()
) -> tuple[list[Kept], list[str]]:
    """Keep the consensus of every (concept, style) group.

    Returns the kept drawings and one report line per group, dropped ones included.
    """
    groups: dict[tuple[str, str], list[Drawing]] = defaultdict(list)
    for drawing in drawings:
        style = style_of(drawing.mask)
        if style is None or (style == "outline" and stroke_width(drawing.mask) < config.min_stroke):
            continue
        groups[drawing.concept, style].append(drawing)
    kept: list[Kept] = []
    report: list[str] = []
    for (concept, style), members in sorted(groups.items()):
        keep = round(config.keep_share * len(members))
        line = f"{concept} / {style}: {len(members)} drawings"
        if f"{concept} / {style}" in left_out:
            report.append(f"{line}, dropped: left out by hand")
            continue
        if keep < config.min_per_group:
            report.append(f"{line}, dropped: too few")
            continue
        chosen, cohesion = consensus(np.stack([d.mask for d in members]), keep)
        if cohesion < config.min_cohesion:
            report.append(f"{line}, dropped: cohesion {cohesion:.2f}")
            continue
        # Copies were votes for the consensus; now that it is found they are only repetitions.
        unique = drop_duplicates(np.stack([members[i].mask for i in chosen]), config.duplicate_correlation)
        chosen = chosen[unique][: config.max_per_group]
        kept += [Kept(members[i], style) for i in chosen]
        report.append(f"{line}, kept {len(chosen)}, cohesion {cohesion:.2f}")
    return kept, report
