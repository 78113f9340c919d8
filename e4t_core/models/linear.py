"""Linear layers whose initial values come from a given generator, never the global one."""

from __future__ import annotations

import torch
from torch import nn


def seeded_linear(
    n_in: int,
    n_out: int,
    rng: torch.Generator,
    *,
    bias: bool = True,
    zero: bool = False,
    device: torch.device | str = "cpu",
) -> nn.Linear:
    """A linear layer.

    Args:
        n_in, n_out: input and output width.
        rng: where PyTorch's usual U(-1/sqrt(n_in), 1/sqrt(n_in)) is drawn from.
        bias: whether it has one.
        zero: weight and bias start at zero instead, so that whatever follows starts as if the layer were not there.
        device: ``cpu``, or ``meta`` to count parameters without memory.
    """
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias, device=device)
    bound = 0.0 if zero else n_in**-0.5
    for tensor in layer.parameters():
        if zero:
            nn.init.zeros_(tensor)
        else:
            nn.init.uniform_(tensor, -bound, bound, generator=rng)
    return layer
