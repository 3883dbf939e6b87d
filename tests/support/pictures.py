"""What tests ask of pictures."""

from __future__ import annotations

from ciar.device_client import Result


def assert_same_picture(picture: Result, base: Result) -> None:
    """Equal token for token, up to the first position that is a reported near tie on either side."""
    differing = [i for i, (a, b) in enumerate(zip(picture.tokens, base.tokens, strict=True)) if a != b]
    if differing:
        assert differing[0] in {*picture.near_ties, *base.near_ties}
