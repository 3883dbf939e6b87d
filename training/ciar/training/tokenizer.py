"""VQ tokenizers: what all of them share, and the one of flat icons. 64x64 pictures ↔ 16x16 tokens.

Flows in: coverage masks (training) or token ids. Flows out: token ids, coverage, RGB. Knows nothing of captions.

Icons have two kinds of token. A cell without ink carries a *ground token*, one for each (foreground, ground) colour
pair. A cell with ink carries a *shape token*: a vector-quantised description of its coverage, the same for all colours.
The decoder takes its colours from a vote of the ground cells nearby. So what is hard to predict, the shape, is one law
for all colours, and flat ground always has the same token (ours; made for little training compute).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ciar.training.palette import FOREGROUNDS, GROUNDS, NUM_PAIRS, pair_table

NEAREST_ROWS = 64
"""Vectors that are compared with all codes at a time, so that the table of distances stays in the cache."""


class TokenizerConfig(BaseModel):
    """Shape of the tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(default=512, gt=NUM_PAIRS + 1)
    """Number V of tokens; of icons: ground tokens first, then shape tokens."""
    grid: int = Field(default=16, gt=0)
    """Tokens to a side."""
    stride: Literal[4, 8] = 4
    """Pixels to a side of a token's cell; a grid of 16 and a stride of 4 mean pictures of 64x64."""
    code_dim: int = Field(default=8, gt=0)
    encoder_width: int = Field(default=128, gt=0)
    decoder_width: int = Field(default=64, gt=0)
    num_blocks: int = Field(default=4, ge=0)
    """Residual blocks of the decoder at token resolution."""
    ground_coverage: float = Field(default=0.12, gt=0, lt=1)
    """Icons: a cell is ground if no pixel of it is covered more than this."""

    @property
    def num_shapes(self) -> int:
        return self.vocab_size - NUM_PAIRS

    @property
    def image_size(self) -> int:
        """Pixels to a side."""
        return self.stride * self.grid


def argmax_rows(table: Tensor) -> Tensor:
    """Column of the largest entry of every row of (N, M): (N,). On the CPU NumPy's, which is several times faster."""
    if table.device.type != "cpu":
        return table.argmax(-1)
    return torch.from_numpy(table.numpy().argmax(-1))


class Quantizer(nn.Module):
    """Codebook of unit vectors, kept by exponential moving averages, dead codes restarted."""

    codes: Tensor
    counts: Tensor

    def __init__(self, num_codes: int, dim: int, decay: float = 0.98) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("codes", F.normalize(torch.randn(num_codes, dim), dim=-1))  # (V', D)
        # Smoothed use per step; none yet, so the first batch restarts the codes that it does not choose.
        self.register_buffer("counts", torch.zeros(num_codes))  # (V',)

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """Index of the nearest code of unit vectors z (N, D): (N,)."""
        codes = self.codes.T.contiguous()  # (D, V')
        with torch.autocast(z.device.type, enabled=False):  # bfloat16 cannot tell near codes apart
            return torch.cat([argmax_rows(part @ codes) for part in z.split(NEAREST_ROWS)])

    @torch.no_grad()
    def update(self, z: Tensor, index: Tensor, generator: torch.Generator) -> None:
        """Move codes towards the vectors (N, D) they were chosen for; restart codes that nobody chooses.

        A restarted code becomes one of the vectors, picked by its distance from its code: what is badly said gets a
        word of its own.
        """
        apart = (z - self.codes[index]).square().sum(-1)  # (N,)
        counts = torch.bincount(index, minlength=len(self.codes)).float()  # (V',)
        sums = torch.zeros_like(self.codes).index_add_(0, index, z)  # (V', D)
        self.counts.lerp_(counts, 1 - self.decay)
        used = counts > 0
        target = F.normalize(sums[used], dim=-1)
        self.codes[used] = F.normalize(torch.lerp(self.codes[used], target, 1 - self.decay), dim=-1)
        dead = (self.counts < 0.02).nonzero()[:, 0]
        if len(dead) and len(z):
            dead = dead[: max(1, len(z) // 4)]
            picks = torch.multinomial((apart + 1e-6).cpu(), len(dead), generator=generator)  # on the CPU always
            self.codes[dead] = z[picks.to(z.device)]
            self.counts[dead] = 1.0


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(F.gelu(x))))


class ShapeDecoder(nn.Module):
    """Code vectors (B, D, g, g) → logits (B, channels, S, S) of pictures with S = stride · g pixels to a side."""

    def __init__(self, config: TokenizerConfig, num_channels: int = 1) -> None:
        super().__init__()
        width, last = config.decoder_width, config.stride // 2
        self.stem = nn.Conv2d(config.code_dim, width, 3, padding=1)
        self.blocks = nn.Sequential(*[ResidualBlock(width) for _ in range(config.num_blocks)])
        self.up = nn.Sequential(
            nn.GELU(), nn.Conv2d(width, 4 * width // 2, 3, padding=1), nn.PixelShuffle(2),  # (B, W/2, 2g, 2g)
            nn.GELU(), nn.Conv2d(width // 2, last**2 * 8, 3, padding=1), nn.PixelShuffle(last),  # (B, 8, S, S)
            nn.GELU(), nn.Conv2d(8, num_channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, codes: Tensor) -> Tensor:
        return self.up(self.blocks(self.stem(codes)))


def cell_encoder(config: TokenizerConfig, num_channels: int) -> nn.Sequential:
    """Pictures (B, channels, S, S) → vectors (B, D, g, g) of one cell and a little around it: predictable tokens."""
    width, margin = config.encoder_width, config.stride // 4
    return nn.Sequential(
        nn.Conv2d(num_channels, width, config.stride + 2 * margin, stride=config.stride, padding=margin), nn.GELU(),
        nn.Conv2d(width, width, 1), nn.GELU(), nn.Conv2d(width, config.code_dim, 1),
    )  # fmt: skip


@dataclass(frozen=True)
class Reconstruction:
    """A training pass through the codebook."""

    images: Tensor
    """Like those that went in; gradients reach decoder and encoder (straight through)."""
    vectors: Tensor
    """(N, D) of the cells that carry a code."""
    index: Tensor
    """(N,) codes chosen for them."""


class VQTokenizer(nn.Module):
    """Encoder, codebook and decoder. What an image is, and which cells carry a code, is a subclass's.

    Images are float32 in [0, 1], coverage (B, H, W) or RGB (B, 3, H, W).
    """

    kind: str
    """Name of the subclass in saved files."""
    config: TokenizerConfig
    quantizer: Quantizer
    decoder: ShapeDecoder

    def encode(self, images: Tensor) -> Tensor:
        """Unit vectors of all cells: (B, g, g, D)."""
        raise NotImplementedError

    def coded_cells(self, images: Tensor) -> Tensor:
        """Which cells carry a code: bool (B, g, g)."""
        raise NotImplementedError

    def decode_codes(self, codes: Tensor, coded: Tensor) -> Tensor:
        """Images of code vectors (B, g, g, D), about [0, 1]; what a cell without a code is, the subclass knows."""
        raise NotImplementedError

    def decoder_parameters(self) -> list[nn.Parameter]:
        """What can be trained further while tokens stay as they are."""
        return list(self.decoder.parameters())

    def token_rows(self, dim: int, generator: torch.Generator) -> Tensor:
        """Random rows of unit variance for all tokens, alike where the tokens are: (V, dim)."""
        raise NotImplementedError

    def picture_decoder(self) -> nn.Module:
        """Tokens (T,) → uint8 picture (H, W, 3): the graph of decoder.onnx."""
        raise NotImplementedError

    def reconstruct(self, images: Tensor) -> Reconstruction:
        """Encode, quantise and decode, with gradients."""
        z, coded = self.encode(images).float(), self.coded_cells(images)  # (B, g, g, D), (B, g, g)
        vectors = z[coded]  # (N, D)
        index = self.quantizer.nearest(vectors.detach())
        codes = torch.zeros_like(z)
        codes[coded] = vectors + (self.quantizer.codes[index] - vectors).detach()
        return Reconstruction(self.decode_codes(codes, coded).float(), vectors, index)

    @torch.no_grad()
    def indices(self, images: Tensor) -> Tensor:
        """Codes of all cells in raster order, −1 where a cell carries none: (B, T)."""
        z = self.encode(images)
        index = self.quantizer.nearest(z.flatten(0, 2)).view(z.shape[:3])
        return torch.where(self.coded_cells(images), index, -1).flatten(1)

    def decode(self, indices: Tensor) -> Tensor:
        """Images of codes (B, T), about [0, 1]."""
        cells = indices.view(len(indices), self.config.grid, self.config.grid)
        return self.decode_codes(self.quantizer.codes[cells.clamp(min=0)], cells >= 0)


class Tokenizer(VQTokenizer):
    """Icons as coverage (B, 64, 64); cells without ink carry no code."""

    kind = "icons"

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = cell_encoder(config, 1)
        self.quantizer = Quantizer(config.num_shapes, config.code_dim)
        self.ground_code = nn.Parameter(torch.zeros(config.code_dim))
        self.decoder = ShapeDecoder(config)

    def encode(self, images: Tensor) -> Tensor:
        return F.normalize(self.encoder(images[:, None]).permute(0, 2, 3, 1), dim=-1)

    def coded_cells(self, images: Tensor) -> Tensor:
        return F.max_pool2d(images[:, None], 4)[:, 0] > self.config.ground_coverage

    def decode_codes(self, codes: Tensor, coded: Tensor) -> Tensor:
        codes = torch.where(coded[..., None], codes, self.ground_code)
        return torch.sigmoid(self.decoder(codes.permute(0, 3, 1, 2))[:, 0])

    def decoder_parameters(self) -> list[nn.Parameter]:
        return [self.ground_code, *self.decoder.parameters()]

    def token_rows(self, dim: int, generator: torch.Generator) -> Tensor:
        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        ground = draw(1, dim) + 0.5 * (draw(len(FOREGROUNDS), 1, dim) + draw(1, len(GROUNDS), dim)).flatten(0, 1)
        shapes = self.quantizer.codes.cpu() @ draw(self.config.code_dim, dim)  # (V', dim)
        return torch.cat([ground, shapes])

    def picture_decoder(self) -> nn.Module:
        return PictureDecoder(self)


def colour_tokens(shapes: Tensor, pairs: Tensor) -> Tensor:
    """Token ids of colourless shapes (B, T) painted with colour pairs (B,): (B, T)."""
    return torch.where(shapes < 0, pairs[:, None], shapes + NUM_PAIRS)


class PictureDecoder(nn.Module):
    """Tokens (T,) → uint8 picture (64, 64, 3): the graph of decoder.onnx."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        grid = tokenizer.config.grid
        self.grid = grid
        self.decoder = tokenizer.decoder
        ground = tokenizer.ground_code.detach().expand(NUM_PAIRS, -1)
        self.register_buffer("table", torch.cat([ground, tokenizer.quantizer.codes]))  # (V, D)
        self.register_buffer("colours", torch.from_numpy(pair_table()).flatten(1))  # (P, 6)
        place = torch.arange(grid * grid)
        rows, columns = place // grid, place % grid
        squared = (rows[:, None] - rows).square() + (columns[:, None] - columns).square()
        self.register_buffer("nearness", (1.0 + squared.float()).pow(-1.5))  # (T, T)
        self.register_buffer("pairs", torch.arange(NUM_PAIRS))  # (P,)

    def colour_field(self, tokens: Tensor) -> Tensor:
        """Foreground and ground colour of every cell by a vote of the ground tokens around it: (T,) → (T, 6).

        A stray ground token is outvoted by its neighbours; without any ground token all cells are gray.
        """
        votes = self.nearness @ (tokens[:, None] == self.pairs).float()  # (T, P)
        votes = votes.pow(3)
        return (votes @ self.colours + 1e-9) / (votes.sum(1, keepdim=True) + 2e-9)

    def forward(self, tokens: Tensor) -> Tensor:
        codes = self.table[tokens].T.reshape(1, -1, self.grid, self.grid)  # (1, D, 16, 16)
        coverage = torch.sigmoid(self.decoder(codes))[0, 0]  # (64, 64)
        colours = self.colour_field(tokens)  # (T, 6)
        field = colours.T.reshape(1, 6, self.grid, self.grid)
        field = F.interpolate(field, scale_factor=4.0, mode="nearest")[0]  # (6, 64, 64)
        picture = field[3:] + coverage * (field[:3] - field[3:])  # (3, 64, 64)
        return (picture.permute(1, 2, 0) * 255.0 + 0.5).clamp(0, 255).to(torch.uint8)
