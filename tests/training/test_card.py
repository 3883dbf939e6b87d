"""The model card: a drafter's section is renewed and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

from ciar.training.card import Measured, credit_rows, renewed, words_of

MEASURED = Measured("3.1 M", "carries a feature", "mine", 7, "2 cores", ["a line", "| a | table |"], "A note.")
CARD = "# pair\n\nIntro.\n\n## Drafter\nold\n\n### Old part\nold\n\n## Data\n| set |\n"


def test_the_drafters_section_is_replaced_and_the_rest_stays() -> None:
    text = renewed(CARD, MEASURED)
    assert text.startswith("# pair\n\nIntro.\n\n## Drafter\nOne layer, 3.1 M parameters")
    assert text.endswith("A note.\n\n## Data\n| set |\n")
    assert "old" not in text.lower().replace("held-out", "")
    assert "a line\n| a | table |" in text
    assert renewed(text, MEASURED) == text


def test_a_card_without_such_a_section_gets_one() -> None:
    text = renewed("# pair\n\n## Data\nfrom here\n", MEASURED)
    assert text.startswith("# pair\n\n## Data\nfrom here\n\n## Drafter\n")
    assert renewed("", MEASURED).count("## Drafter") == 1


def test_the_embedded_pairs_card_has_a_section_to_renew() -> None:
    card = Path(__file__).parents[2] / "bundles" / "ciar" / "bundles" / "icons" / "README.md"
    assert card.read_text(encoding="utf-8").count("\n## Drafter") == 1


def test_words_and_credits() -> None:
    assert words_of({"concept": ("heart", "star")}) == "Concept (2): heart, star."
    credit = {"name": "S", "author_url": "u", "author": "A", "licence": "MIT", "licence_url": "", "drawings": 3}
    assert credit_rows([credit]) == "| [S](u) | A | MIT | 3 |"
