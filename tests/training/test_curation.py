"""Style from pixels and the choice of drawings by consensus."""

from __future__ import annotations

import numpy as np
import pytest

from ciar.training.curation import STYLES, CurationConfig, consensus, curate, drop_duplicates, style_of
from ciar.training.drawn import SHAPES, draw
from ciar.training.icons import Drawing, base_name, place


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("style", STYLES)
def test_style_is_read_from_pixels(shape: str, style: str) -> None:
    assert style_of(draw(shape, style, 24, stroke=4)) == style


def test_consensus_keeps_the_majority_and_drops_the_outliers() -> None:
    circles = [draw("circle", "filled", r) for r in np.linspace(20, 24, 8)]
    others = [draw("cross", "filled", 24), draw("triangle", "filled", 24)]
    chosen, cohesion = consensus(np.stack([*others, *circles]), keep=6)
    assert set(chosen) <= set(range(2, 10))
    assert cohesion > 0.9


def test_copies_vote_but_only_one_of_them_stays() -> None:
    drawings = [Drawing(f"a:{i}", "dot", draw("circle", "filled", 22)) for i in range(10)]
    drawings += [Drawing(f"b:{i}", "dot", draw("cross", "filled", 24)) for i in range(4)]
    kept, report = curate(drawings, CurationConfig(min_per_group=4))
    assert [k.drawing.key for k in kept] == ["a:0"]
    assert len(report) == 1


def test_group_left_out_by_hand() -> None:
    drawings = [Drawing(f"a:{i}", "dot", draw("circle", "filled", 20 + i / 4)) for i in range(16)]
    kept, report = curate(drawings, CurationConfig(min_per_group=4), frozenset({"dot / filled"}))
    assert not kept
    assert "left out by hand" in report[0]


def test_duplicates_are_found() -> None:
    masks = np.stack([draw("circle", "filled", 22), draw("circle", "filled", 22), draw("square", "filled", 22)])
    assert drop_duplicates(masks, 0.99).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("heart-filled", "heart"),
        ("home-20-solid", "home"),
        ("arrow-up", "arrow up"),
        ("star-thin", None),
        ("wifi-off", None),
    ],
)
def test_base_name_drops_style_words(name: str, shown: str | None) -> None:
    assert base_name(name) == shown


def test_place_centres_the_ink_and_refuses_half_tones() -> None:
    alpha = np.zeros((100, 100), np.uint8)
    alpha[10:30, 20:80] = 255
    mask = place(alpha, 48)
    assert mask is not None
    rows, columns = np.nonzero(mask > 127)
    assert (columns.min(), columns.max()) == (8, 55)
    assert abs((rows.min() + rows.max()) / 2 - 31.5) <= 0.5
    assert place(alpha // 2, 48) is None
    assert place(np.zeros((100, 100), np.uint8), 48) is None
