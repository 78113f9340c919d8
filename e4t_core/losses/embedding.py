"""Penalties on predicted embeddings, one value per sample."""

from __future__ import annotations

from torch import Tensor


def embedding_l2(offset_BD: Tensor) -> Tensor:
    """``||E||_2^2`` (E4T eq. 2): (B,) float32, each sample's sum of squares. It is E that is penalized, not e_c."""
    return offset_BD.float().square().sum(1)
