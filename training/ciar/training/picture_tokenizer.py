"""The VQ tokenizer of any RGB pictures: every cell carries a code, and a code carries colour.

Flows in: pictures or token ids. Flows out: token ids, pictures. Knows nothing of captions. Codebook and blocks are
those of `ciar.training.tokenizer`; there are no ground tokens and no palette.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ciar.training.tokenizer import Quantizer, ShapeDecoder, TokenizerConfig, VQTokenizer, cell_encoder


class PictureTokenizer(VQTokenizer):
    """RGB pictures (B, 3, S, S) of S = stride · g pixels to a side; token = code."""

    kind = "pictures"

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = cell_encoder(config, 3)
        self.quantizer = Quantizer(config.vocab_size, config.code_dim)
        self.decoder = ShapeDecoder(config, 3)

    def encode(self, images: Tensor) -> Tensor:
        return F.normalize(self.encoder(images).permute(0, 2, 3, 1), dim=-1)

    def coded_cells(self, images: Tensor) -> Tensor:
        grid = self.config.grid
        return torch.ones(len(images), grid, grid, dtype=torch.bool, device=images.device)

    def decode_codes(self, codes: Tensor, coded: Tensor) -> Tensor:
        # Not a sigmoid: where most pixels are white, L1 drives it into saturation before the codebook says anything.
        return self.decoder(codes.permute(0, 3, 1, 2)) + 0.5

    def token_rows(self, dim: int, generator: torch.Generator) -> Tensor:
        return self.quantizer.codes.cpu() @ torch.randn(self.config.code_dim, dim, generator=generator)

    def picture_decoder(self) -> nn.Module:
        return PictureDecoder(self)


class PictureDecoder(nn.Module):
    """Tokens (T,) → uint8 picture (S, S, 3)."""

    codes: Tensor

    def __init__(self, tokenizer: PictureTokenizer) -> None:
        super().__init__()
        self.grid = tokenizer.config.grid
        self.decoder = tokenizer.decoder
        self.register_buffer("codes", tokenizer.quantizer.codes)  # (V, D)

    def forward(self, tokens: Tensor) -> Tensor:
        codes = self.codes[tokens].T.reshape(1, -1, self.grid, self.grid)  # (1, D, g, g)
        picture = self.decoder(codes)[0] + 0.5  # (3, S, S)
        return (picture.permute(1, 2, 0) * 255.0 + 0.5).clamp(0, 255).to(torch.uint8)
