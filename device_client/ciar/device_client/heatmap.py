"""The heat map: who decided each token of a picture, as an image with a legend."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from ciar.device_client.result import Decision, Result

COLOURS: dict[Decision, tuple[int, int, int]] = {
    Decision.LOCAL: (0x56, 0xB4, 0xE9),
    Decision.ACCEPTED: (0xF0, 0xE4, 0x42),
    Decision.RESAMPLED: (0xD5, 0x5E, 0x00),
    Decision.PREFIX: (0x99, 0x99, 0x99),
    Decision.CLOUD: (0x66, 0x66, 0x66),
}
"""Okabe and Ito's palette: told apart with every common colour vision; the greys are the cloud alone."""

LABELS = {
    Decision.LOCAL: "device alone",
    Decision.ACCEPTED: "verified, accepted",
    Decision.RESAMPLED: "verified, resampled",
    Decision.PREFIX: "cloud's prefix",
    Decision.CLOUD: "cloud alone",
}


def heatmap(result: Result, *, width_px: int = 384, opacity: float = 0.6, legend: bool = True) -> Image.Image:
    """The picture under a veil of who decided each token, above a legend with counts. RGB, about `width_px` wide.

    opacity: of the veil, in [0, 1]. legend: False for the picture alone.
    """
    cell = max(1, width_px // result.grid_width)
    rows = len(result.tokens) // result.grid_width
    size = (cell * result.grid_width, cell * rows)
    veil = Image.new("RGB", (result.grid_width, rows))
    veil.putdata([COLOURS[decision] for decision in result.decisions])
    veil = veil.resize(size, Image.Resampling.NEAREST)
    picture = result.image.convert("RGB").resize(size, Image.Resampling.NEAREST)
    veiled = Image.blend(picture, veil, opacity)
    return _with_legend(veiled, result) if legend else veiled


def _with_legend(picture: Image.Image, result: Result) -> Image.Image:
    present = [decision for decision in COLOURS if decision in result.decisions]
    line, margin = 20, 6
    sheet = Image.new("RGB", (picture.width, picture.height + line * len(present) + 2 * margin), "white")
    sheet.paste(picture, (0, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, decision in enumerate(present):
        top = picture.height + margin + index * line
        pen.rectangle((margin, top + 2, margin + 14, top + 16), fill=COLOURS[decision], outline="black")
        count = result.decisions.count(decision)
        label = f"{LABELS[decision]}: {count} ({count / len(result.tokens):.0%})"
        pen.text((margin + 22, top + 1), label, fill="black", font=font)
    return sheet
