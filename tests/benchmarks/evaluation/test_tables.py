"""Tables on disk: drawn once, taken up again, and never mistaken for one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciar.benchmarks.evaluation import tables
from ciar.benchmarks.evaluation.rollout import Play
from ciar.benchmarks.evaluation.tables import draw_tables
from tests.support.fake_pair import SAMPLING, fake_pair, three

PLAYS = (Play("cloud", "always"), Play("ciar", "threshold:0.5"))


# numpy leaves the file open if it is no whole archive.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*npz:pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_evaluation_draws_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = draw_tables(fake_pair(0.3), PLAYS, three(), SAMPLING, tmp_path)
    assert list(first) == ["cloud", "ciar"]
    lost = next(tmp_path.glob("ciar-*.npz"))
    lost.write_bytes(lost.read_bytes()[:100])  # the disk was full
    drawn: list[str] = []
    whole = tables.roll_out

    def counted(pair, pictures, play, sampling, on_position):  # type: ignore[no-untyped-def]
        drawn.append(play.name)
        return whole(pair, pictures, play, sampling, on_position)

    monkeypatch.setattr(tables, "roll_out", counted)
    again = draw_tables(fake_pair(0.3), PLAYS, three(), SAMPLING, tmp_path)
    assert drawn == ["ciar"]
    assert list(again) == ["cloud", "ciar"]
    assert (again["ciar"].tokens == first["ciar"].tokens).all()
    assert (again["cloud"].tokens == first["cloud"].tokens).all()


@pytest.mark.parametrize("what", ["gate", "features", "pictures", "sampling", "pair"])
def test_another_setting_is_another_file(tmp_path: Path, what: str) -> None:
    pair, play, pictures, sampling = fake_pair(), PLAYS[1], three(), SAMPLING
    draw_tables(pair, [play], pictures, sampling, tmp_path)
    match what:
        case "gate":
            play = Play("ciar", "threshold:0.25")
        case "features":
            play = Play("ciar", "threshold:0.5", send_features=True)
        case "pictures":
            pictures = pictures[:2]
        case "sampling":
            sampling = sampling.model_copy(update={"temperature": 0.5})
        case "pair":
            pair = pair._replace(manifest=pair.manifest.model_copy(update={"version": "2"}))
    draw_tables(pair, [play], pictures, sampling, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
