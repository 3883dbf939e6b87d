"""The model card: what a pair draws, what it cannot, how it was made and from what.

Flows in: figures and words as text. Flows out: Markdown. The section on the drafter can be renewed alone, for a drafter
that was made for another bundle's cloud model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TEMPLATE = """\
# {name}: a model pair for CIAR

A cloud transformer, a one-layer drafter with Inter-Head and a VQ tokenizer. Trained from scratch by `training/` in this
repository; no other weights were used.

![samples](samples.png)

The cloud model alone, guidance {guidance}, temperature {temperature}, seed 0, not selected (first: {first_prompts}; …).

## What it draws
{words}

Any word may be left out, and the order does not matter.

## What it cannot do
Anything but these words, and nothing that a picture of the data set does not show. It shows a decoding method, not the
state of image generation.

## Cloud model and tokenizer
| part | size | file |
|---|---|---|
| cloud transformer ({shape}) | {cloud_size} parameters | cloud.safetensors (float16) |
| tokenizer | {tokenizer_size} parameters (the decoder alone is shipped) | decoder.onnx |

Commands `data`, `tokenizer`, `cloud` of `ciar train` with the configuration `{config}`, seed {seed}, on {machine}.

{drafter}

## Data
{num_pictures} pictures. Held out: {held_out_share:.0%} of them{held_out_sets}, and one in twenty combinations of words.
With thanks to the authors:

| set | author | licence | pictures |
|---|---|---|---|
{credits}
"""

DRAFTER = """\
## Drafter
One layer, {size} parameters, distilled from the cloud's guided law; it {features}. Commands `laws`, `drafter`,
`radius`, `features`, `export` of `ciar train` with the configuration `{config}`, seed {seed}, on {machine}.

Measured on held-out combinations of words, after the prefix, in sequences that both wrote as a gate would share the
work; distances are between the laws that tokens are drawn from, at the pair's temperature. Cells are coupled
agreement / mean TV among the accepted. Printed by `ciar train export`:

{lines}
"""


@dataclass(frozen=True)
class Measured:
    """What the section on the drafter says."""

    size: str
    features: str
    config: str
    seed: int
    machine: str
    lines: Sequence[str]
    """What `export` printed."""
    notes: str
    """Markdown that a person wrote of the run."""

    def section(self) -> str:
        """The section, Markdown."""
        lines = "\n".join(self.lines).strip()
        text = DRAFTER.format(
            size=self.size,
            features=self.features,
            config=self.config,
            seed=self.seed,
            machine=self.machine,
            lines=lines,
        )
        return f"{text}\n{self.notes}".strip()


def card(measured: Measured, **facts: Any) -> str:
    """A whole card; facts: what `TEMPLATE` names."""
    return TEMPLATE.format(drafter=measured.section(), **facts)


def renewed(text: str, measured: Measured) -> str:
    """A card with its section on the drafter replaced, or added at the end."""
    sections = re.split(r"(?m)^(?=## )", text.strip() or "# A model pair for CIAR")
    fresh = measured.section() + "\n\n"
    found = [i for i, section in enumerate(sections) if section.startswith("## Drafter")]
    if found:
        sections[found[0]] = fresh
    else:
        sections[-1] = f"{sections[-1].rstrip()}\n\n"
        sections.append(fresh)
    return "".join(sections).rstrip() + "\n"


def words_of(kinds: Mapping[str, Sequence[str]]) -> str:
    """The words that a pair knows, a paragraph for each kind."""
    return "\n\n".join(f"{kind.capitalize()} ({len(words)}): {', '.join(words)}." for kind, words in kinds.items())


def credit_rows(credits: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the credits' table, from credits.json."""
    return "\n".join(
        f"| {_link(c['name'], c['author_url'])} | {c['author']} | {_link(c['licence'], c['licence_url'])} "
        f"| {c['drawings']} |"
        for c in credits
    )


def _link(text: str, url: str) -> str:
    return f"[{text}]({url})" if url else text
