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

from e4t_core.adapters.borrowed import shifted
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

    def only(self, k: int) -> LowRank:
        """Identity k's, with K = 1."""
        return LowRank(self.up[k : k + 1], self.down[k : k + 1])


@contextlib.contextmanager
def merged(projections: Mapping[str, Projection], weights: Mapping[str, LowRank], k: int = 0) -> Iterator[None]:
    """Inside, identity k's dW is part of the layers' own weights; outside, these are bit for bit as before."""
    parameters = {name: projections[name].module.get_parameter("weight") for name in weights}
    with torch.no_grad():
        deltas = {name: one.only(k).matrix()[0] for name, one in weights.items()}
    with shifted(parameters, deltas):
        yield


@contextlib.contextmanager
def low_rank_per_sample(
    projections: Mapping[str, Projection], weights: Mapping[str, LowRank], which_B: Tensor, parts: int = 1
) -> Iterator[None]:
    """Inside, sample i of every batch of B computes the named layers with the weights of identity ``which_B[i]``.

    A batch of ``n * B`` (the doubled batch of classifier-free guidance) repeats ``which_B`` in order. The mapping is
    read at each call, so its owner may replace entries between batches.

    Args:
        projections: layers by name; those that ``weights`` does not name stay as they are.
        weights: by the layer's name.
        which_B: (B,) int64, rows of the K identities.
        parts: every batch is so many equal parts, of which the first computes with the weights.
    """

    def term(x: Tensor, out: Tensor, one: LowRank) -> Tensor:
        return out + per_sample_term(x, one, which_B)

    with _hooked(projections, weights, term, parts):
        yield


@contextlib.contextmanager
def low_rank_in_runs(
    projections: Mapping[str, Projection], weights: Mapping[str, LowRank], parts: int = 1
) -> Iterator[None]:
    """Inside, every batch holds as many samples of each of the K identities, those of the first identity first.

    The fast form for training: no factor is copied for a sample, and each layer takes two batched products.

    Args:
        projections: layers by name; those that ``weights`` does not name stay as they are.
        weights: by the layer's name, best in the precision that the layer's output has.
        parts: every batch is so many equal parts, of which the first computes with the weights and is laid out so.
    """
    with _hooked(projections, weights, _add_in_runs, parts):
        yield


def _add_in_runs(x: Tensor, out: Tensor, one: LowRank) -> Tensor:
    """``out + up (down x)`` for ``x`` (K * n, ..., N) and ``out`` (K * n, ..., M)."""
    up, down, K = one.up.to(out.dtype), one.down.to(out.dtype), len(one.up)
    if x.shape[0] % K:
        raise ValueError(f"a batch of {x.shape[0]} does not hold as many samples of each of {K} identities")
    inner = torch.bmm(x.to(out.dtype).reshape(K, -1, x.shape[-1]), down.mT)
    return torch.baddbmm(out.reshape(K, -1, out.shape[-1]), inner, up.mT).view(out.shape)


@contextlib.contextmanager
def _hooked(
    projections: Mapping[str, Projection],
    weights: Mapping[str, LowRank],
    term: Callable[[Tensor, Tensor, LowRank], Tensor],
    parts: int,
) -> Iterator[None]:
    """Inside, the named layers give ``term(x, out, weights[name])`` on the first of ``parts`` of each batch."""

    def hook_for(name: str) -> Callable[[Any, tuple[Tensor], Tensor], Tensor]:
        def hook(layer: Any, inputs: tuple[Tensor], out: Tensor) -> Tensor:
            if parts == 1:
                return term(inputs[0], out, weights[name])
            count = len(out) // parts
            return torch.cat([term(inputs[0][:count], out[:count], weights[name]), out[count:]])

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
