"""Draws pictures of token sequences on one sheet.

Flows in: tokens and a tokenizer. Flows out: an image. Knows nothing of models.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ciar.training.tokenizer import VQTokenizer


@torch.inference_mode()
def pictures(tokenizer: VQTokenizer, tokens: Tensor) -> NDArray[np.uint8]:
    """Decode tokens (N, T): uint8 (N, H, W, 3)."""
    decoder = tokenizer.picture_decoder().eval()
    return np.stack([decoder(row).numpy() for row in tokens])


def sheet(images: NDArray[np.uint8], columns: int, gap: int = 4) -> Image.Image:
    """Tile images (N, h, w, 3) row by row on white."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas)
