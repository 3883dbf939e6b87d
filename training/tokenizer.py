"""The VQ tokenizer of flat icons: 64x64 pictures ↔ 16x16 tokens.

Flows in: coverage masks (training) or token ids. Flows out: token ids, coverage, RGB. Knows nothing of captions.

Two kinds of token. A cell without ink carries a *ground token*, one for each (foreground, ground) colour pair. A cell
with ink carries a *shape token*: a vector-quantised description of its coverage, the same for all colours. The decoder
takes its colours from a vote of the ground cells nearby. So what is hard to predict, the shape, is one law for all
colours, and flat ground always has the same token (ours; made for little training compute).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from training.palette import NUM_PAIRS, pair_table


class TokenizerConfig(BaseModel):
    """Shape of the tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(default=512, gt=NUM_PAIRS + 1)
    """Number V of tokens: ground tokens first, then shape tokens."""
    grid: int = Field(default=16, gt=0)
    code_dim: int = Field(default=8, gt=0)
    encoder_width: int = Field(default=128, gt=0)
    decoder_width: int = Field(default=64, gt=0)
    num_blocks: int = Field(default=4, ge=0)
    """Residual blocks of the decoder at token resolution."""
    ground_coverage: float = Field(default=0.12, gt=0, lt=1)
    """A cell is ground if no pixel of it is covered more than this."""

    @property
    def num_shapes(self) -> int:
        return self.vocab_size - NUM_PAIRS


class Quantizer(nn.Module):
    """Codebook of unit vectors, kept by exponential moving averages, dead codes restarted."""

    codes: Tensor
    counts: Tensor

    def __init__(self, num_codes: int, dim: int, decay: float = 0.98) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("codes", F.normalize(torch.randn(num_codes, dim), dim=-1))  # (V', D)
        self.register_buffer("counts", torch.ones(num_codes))  # (V',) smoothed use per step

    def nearest(self, z: Tensor) -> Tensor:
        """Index of the nearest code of unit vectors z (N, D): (N,)."""
        return (z @ self.codes.T).argmax(-1)

    @torch.no_grad()
    def update(self, z: Tensor, index: Tensor, generator: torch.Generator) -> None:
        """Move codes towards the vectors (N, D) they were chosen for; restart codes that nobody chooses."""
        counts = torch.bincount(index, minlength=len(self.codes)).float()  # (V',)
        sums = torch.zeros_like(self.codes).index_add_(0, index, z)  # (V', D)
        self.counts.lerp_(counts, 1 - self.decay)
        used = counts > 0
        target = F.normalize(sums[used], dim=-1)
        self.codes[used] = F.normalize(torch.lerp(self.codes[used], target, 1 - self.decay), dim=-1)
        dead = (self.counts < 0.02).nonzero()[:, 0]
        if len(dead) and len(z):
            picks = torch.randint(len(z), (len(dead),), generator=generator)
            self.codes[dead] = z[picks]
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
    """Code vectors (B, D, 16, 16) → coverage logits (B, 64, 64)."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.stem = nn.Conv2d(config.code_dim, width, 3, padding=1)
        self.blocks = nn.Sequential(*[ResidualBlock(width) for _ in range(config.num_blocks)])
        self.up = nn.Sequential(
            nn.GELU(), nn.Conv2d(width, 4 * width // 2, 3, padding=1), nn.PixelShuffle(2),  # (B, W/2, 32, 32)
            nn.GELU(), nn.Conv2d(width // 2, 4 * 8, 3, padding=1), nn.PixelShuffle(2),  # (B, 8, 64, 64)
            nn.GELU(), nn.Conv2d(8, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, codes: Tensor) -> Tensor:
        return self.up(self.blocks(self.stem(codes)))[:, 0]


class Tokenizer(nn.Module):
    """Encoder, codebook and decoder. The encoder sees one cell and a pixel around it, so tokens stay predictable."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder_width
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 6, stride=4, padding=1), nn.GELU(),
            nn.Conv2d(width, width, 1), nn.GELU(), nn.Conv2d(width, config.code_dim, 1),
        )  # fmt: skip
        self.quantizer = Quantizer(config.num_shapes, config.code_dim)
        self.ground_code = nn.Parameter(torch.zeros(config.code_dim))
        self.decoder = ShapeDecoder(config)

    def ground_cells(self, masks: Tensor) -> Tensor:
        """Which cells hold no ink: coverage (B, 64, 64) → bool (B, 16, 16)."""
        return F.max_pool2d(masks[:, None], 4)[:, 0] <= self.config.ground_coverage

    def encode(self, masks: Tensor) -> Tensor:
        """Unit vectors of all cells: (B, 64, 64) → (B, 16, 16, D)."""
        return F.normalize(self.encoder(masks[:, None]).permute(0, 2, 3, 1), dim=-1)

    def decode_codes(self, codes: Tensor, ground: Tensor) -> Tensor:
        """Coverage logits (B, 64, 64) of code vectors (B, 16, 16, D), the ground cells replaced."""
        codes = torch.where(ground[..., None], self.ground_code, codes)
        return self.decoder(codes.permute(0, 3, 1, 2))

    @torch.no_grad()
    def shapes(self, masks: Tensor) -> Tensor:
        """Colourless tokens: −1 for ground, else the shape index. (B, 64, 64) → (B, T)."""
        z = self.encode(masks)
        index = self.quantizer.nearest(z.flatten(0, 2)).view(z.shape[:3])
        return torch.where(self.ground_cells(masks), -1, index).flatten(1)


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
        coverage = torch.sigmoid(self.decoder(codes))[0]  # (64, 64)
        colours = self.colour_field(tokens)  # (T, 6)
        field = colours.T.reshape(1, 6, self.grid, self.grid)
        field = F.interpolate(field, scale_factor=4.0, mode="nearest")[0]  # (6, 64, 64)
        picture = field[3:] + coverage * (field[:3] - field[3:])  # (3, 64, 64)
        return (picture.permute(1, 2, 0) * 255.0 + 0.5).clamp(0, 255).to(torch.uint8)
