"""Penalties on predicted weight offsets, one value per sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from e4t_core.adapters.low_rank import LowRank


def offset_l2(weights: Mapping[str, LowRank]) -> Tensor:
    """``sum over layers of ||dW||_F^2`` (Domain-Agnostic Tuning-Encoder section 4.1): (K,) float32.

    Computed from the factors, ``||U D||^2 = tr(U^T U D D^T)``, so that no dW is formed.
    """
    with torch.autocast(next(iter(weights.values())).up.device.type, enabled=False):
        norms = [
            ((one.up.float().mT @ one.up.float()) * (one.down.float() @ one.down.float().mT)).sum((1, 2))
            for one in weights.values()
        ]
    return torch.stack(norms).sum(0)
