"""The pixel decoder: a picture's tokens in, an image out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ciar.device_client.graphs import load_graph
from ciar.shared.types import Tokens

NAME = "decoder.onnx"


class Decoder:
    """The VQ decoder, an ONNX graph."""

    def __init__(self, path: Path) -> None:
        """Raises PairMismatch if the graph has other inputs."""
        self._session = load_graph(path, NAME, {"tokens"})

    def __call__(self, tokens: Tokens) -> Image.Image:
        """tokens: (T,) -> RGB image of H_px × W_px."""
        (pixels,) = self._session.run(["image"], {"tokens": np.asarray(tokens, np.int64)})  # uint8 (H, W, 3)
        return Image.fromarray(np.asarray(pixels, np.uint8))
