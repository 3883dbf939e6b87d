"""Judges trained in seconds on shapes drawn by code: they learn, they are kept, and they say what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ciar.benchmarks.evaluation.judges import NUM_CANDIDATES, JudgeConfig, Judges, corrupted, prepare_judges, recall
from ciar.benchmarks.evaluation.pixels import paint
from ciar.shared.errors import InvalidRequest
from ciar.training.drawn import SHAPES, draw
from ciar.training.palette import FOREGROUNDS, GROUNDS
from tests.support.drawn_judges import CONFIG, write_drawings


def test_learn_what_held_out_drawings_show(judges: Judges) -> None:
    """Chance would be a quarter for concepts and 1 % for captions."""
    held_out = judges.held_out
    assert held_out.num_drawings > 10
    assert held_out.all_right == 1
    assert held_out.concept_top1 >= 0.9
    assert held_out.concept_top5 == 1
    assert held_out.recall >= 0.5
    assert held_out.similarity > 0.5


def test_colours_do_not_sway_the_concept(judges: Judges) -> None:
    mask = draw("cross", "filled", 21)[None]
    concept = np.array([sorted(SHAPES).index("cross")])
    for foreground in range(len(FOREGROUNDS)):
        labels = np.array([[concept[0], 0, foreground, 1]])
        right, coverage = judges.read(paint(mask, labels[:, 2], labels[:, 3]), labels)
        assert right.all()
        assert judges.concept_ranks(coverage, concept)[0] == 0


def test_an_empty_picture_is_only_right_about_its_ground(judges: Judges) -> None:
    labels = np.array([[0, style, 2, 0] for style in range(2)])
    right, coverage = judges.read(np.full((2, 64, 64, 3), 255, np.uint8), labels)
    assert np.array_equal(right, [[False, False, True]] * 2)
    assert not coverage.any()


def test_scorer_prefers_the_right_colour_and_style(judges: Judges) -> None:
    mask = draw("square", "outline", 21)[None]
    labels = np.array([[sorted(SHAPES).index("square"), 1, 4, 2]])
    changes = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 2, 0], [0, -1, 0, 0]])
    captions = labels[:, None] + changes  # (1, 4, 4)
    cosines = judges.similarities(paint(mask, labels[:, 2], labels[:, 3]), captions)[0]
    assert cosines.argmax() == 0


def test_are_kept_and_read_back(judges: Judges, judge_folder: Path) -> None:
    paths = sorted((judge_folder / "cache").iterdir())
    assert [path.name.split("-")[0] for path in paths] == ["captions", "concepts"]
    written = [path.stat().st_mtime_ns for path in paths]
    again = prepare_judges(judge_folder / "data", judge_folder / "cache", CONFIG)
    assert [path.stat().st_mtime_ns for path in paths] == written
    assert again.held_out == judges.held_out
    masks = judges.data.masks[:8]
    assert np.array_equal(
        again.concept_ranks(masks, again.data.concept[:8]), judges.concept_ranks(masks, judges.data.concept[:8])
    )


def test_another_seed_or_other_data_are_other_judges(tmp_path: Path) -> None:
    config = JudgeConfig(width=4, embedding=4, concept_steps=2, caption_steps=2, batch_size=4)
    for folder, count in (("one", 3), ("two", 4)):
        write_drawings(tmp_path / folder, count, seed=0)
    prepare_judges(tmp_path / "one", tmp_path / "cache", config)
    prepare_judges(tmp_path / "one", tmp_path / "cache", config.model_copy(update={"seed": 1}))
    prepare_judges(tmp_path / "two", tmp_path / "cache", config)
    assert len(list((tmp_path / "cache").glob("concepts-*.pt"))) == 3


def test_the_same_seed_trains_the_same_judges(tmp_path: Path) -> None:
    config = JudgeConfig(width=4, embedding=4, concept_steps=2, caption_steps=2, batch_size=4)
    write_drawings(tmp_path / "data", 3, seed=0)
    first, second = (prepare_judges(tmp_path / "data", tmp_path / cache, config) for cache in ("a", "b"))
    labels = np.zeros((4, 4), np.int64)
    pictures = paint(first.data.masks[:4], labels[:, 2], labels[:, 3])
    captions = first.candidates(labels, seed=0)
    assert np.array_equal(first.similarities(pictures, captions), second.similarities(pictures, captions))


def test_wrong_captions_are_wrong_and_hard() -> None:
    sizes = (5, 2, len(FOREGROUNDS), len(GROUNDS))
    labels = np.array([[4, 1, 0, 5]] * 20)
    wrong = corrupted(labels, NUM_CANDIDATES - 1, sizes, np.random.default_rng(0))
    changed = wrong != labels[:, None]
    assert changed.any(-1).all()
    assert ((wrong >= 0) & (wrong < sizes)).all()
    assert changed.mean() == pytest.approx(8.5 / 16, abs=0.02)  # a half, and one word where none would have changed


def test_recall_counts_ties_as_failures() -> None:
    assert recall(np.array([[0.9, 0.1, 0.8], [0.5, 0.5, 0.1], [0.2, 0.3, 0.1]])) == pytest.approx(1 / 3)


def test_say_which_command_makes_the_data(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="holds no prepared drawings; run `ciar train data` first"):
        prepare_judges(tmp_path, tmp_path)


def test_refuse_data_without_held_out_drawings(tmp_path: Path) -> None:
    write_drawings(tmp_path, 2, seed=0, held_out_share=0)
    with pytest.raises(InvalidRequest, match="has no held out drawings; mend"):
        prepare_judges(tmp_path, tmp_path)
