"""Low-rank weights on linear layers that belong to somebody else: ``W = W0 + U D``, one pair for every identity.

A batch may hold samples of many identities: sample i computes with the weights of identity ``which[i]``. Nothing is
copied and nothing mixes: identity k's gradient comes from its own samples alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from e4t_core.backbones.base import Projection


@dataclass(frozen=True)
class LowRank:
    """``dW = up @ down`` of K identities, for a weight of M outputs and N inputs.

    Attributes:
        up: (K, M, R).
        down: (K, R, N).
    """

    up: Tensor
    down: Tensor

    def matrix(self) -> Tensor:
        """(K, M, N) dW, at the factors' own precision whatever autocast is on."""
        with torch.autocast(self.up.device.type, enabled=False):
            return self.up @ self.down

    def __add__(self, other: LowRank) -> LowRank:
        """The exact sum: ranks add up, and no matrix is formed."""
        return LowRank(torch.cat([self.up, other.up], dim=2), torch.cat([self.down, other.down], dim=1))


@contextlib.contextmanager
def low_rank_per_sample(
    projections: Mapping[str, Projection], weights: Mapping[str, LowRank], which_B: Tensor
) -> Iterator[None]:
    """Inside, sample i of every batch of B computes the named layers with the weights of identity ``which_B[i]``.

    A batch of ``n * B`` (the doubled batch of classifier-free guidance) repeats ``which_B`` in order. The mapping is
    read at each call, so its owner may replace entries between batches.

    Args:
        projections: layers by name; those that ``weights`` does not name stay as they are.
        weights: by the layer's name.
        which_B: (B,) int64, rows of the K identities.
    """

    def hook_for(name: str) -> Callable[[Any, tuple[Tensor], Tensor], Tensor]:
        def hook(layer: Any, inputs: tuple[Tensor], out: Tensor) -> Tensor:
            return out + per_sample_term(inputs[0], weights[name], which_B)

        return hook

    handles = [projections[name].module.register_forward_hook(hook_for(name)) for name in weights]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def per_sample_term(x: Tensor, weights: LowRank, which_B: Tensor) -> Tensor:
    """``up (down x)`` of each sample's identity, for ``x`` (n * B, ..., N): (n * B, ..., M) in x's dtype."""
    which = which_B.repeat(x.shape[0] // len(which_B))
    up, down = (t.index_select(0, which).to(x.dtype) for t in (weights.up, weights.down))
    rows = x.reshape(x.shape[0], -1, x.shape[-1])
    return (rows @ down.mT @ up.mT).view(*x.shape[:-1], -1)
