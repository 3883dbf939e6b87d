"""Linear layers with weights in oneDNN's own layout, for passes of few rows on a CPU.

A decoding pass multiplies every weight with one to a few dozen rows. There the plain GEMM of `nn.Linear` re-reads and
re-orders the weight on each call; a weight packed once at load time took about half the time (see docs/log.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PACKED_BATCH_HINT = 2
"""Rows the packing is tuned for; any number works."""


class PackedLinear(nn.Module):
    """A frozen `nn.Linear` without bias, float32, on the CPU."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _PACKED_BATCH_HINT)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")


def pack_linears(module: nn.Module) -> None:
    """Replace every float32 CPU `nn.Linear` without bias below `module`, where this build of torch can pack."""
    if not torch.backends.mkldnn.is_available():
        return
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and child.bias is None and child.weight.device.type == "cpu":
            setattr(module, name, PackedLinear(child))
        else:
            pack_linears(child)
