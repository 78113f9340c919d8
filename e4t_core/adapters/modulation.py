"""Putting ``W = W0 * (1 + dW)`` (E4T eq. 3) on linear layers that belong to somebody else, and taking it off again.

Two exact forms of the same thing:

- :func:`modulated` changes the weight through ``torch.nn.utils.parametrize``: one dW for a whole batch;
- :func:`modulated_per_sample` changes the output by a hook: every sample of a batch has its own low-rank dW, using
  ``(W0 * (1 + sum_k u_k v_k^T)) x = W0 x + sum_k u_k * (W0 (v_k * x))``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from e4t_core.backbones.base import Projection


@dataclass(frozen=True)
class Factors:
    """``dW = sum_k u_k v_k^T`` for a weight of M outputs and N inputs.

    Attributes:
        u: (K, M), or (B, K, M) with one dW per sample.
        v: (K, N), or (B, K, N).
    """

    u: Tensor
    v: Tensor

    def matrix(self) -> Tensor:
        """(M, N) or (B, M, N) dW, at the factors' own precision whatever autocast is on."""
        with torch.autocast(self.u.device.type, enabled=False):
            return self.u.mT @ self.v

    def of(self, which_B: Tensor | None) -> Factors:
        """For each of B samples its identity's, from those of K; None: as they are."""
        return self if which_B is None else Factors(self.u[which_B], self.v[which_B])


class Modulation(nn.Module):
    """The parametrization of one weight. It holds no parameter, so the layer's owner sees none that is not its own."""

    def __init__(self, delta: Callable[[], Tensor]) -> None:
        super().__init__()
        self._delta = lambda: delta()  # a module would be registered as a part of the layer
        self._held: Tensor | None = None

    def forward(self, W0: Tensor) -> Tensor:
        """``W0 * (1 + dW)`` in W0's dtype; dW = 0 gives W0 bit for bit."""
        return self.weight(W0) if self._held is None else self._held

    def weight(self, W0: Tensor) -> Tensor:
        """The same, always computed anew."""
        return (W0 * (1 + self._delta())).to(W0.dtype)

    def hold(self, weight: Tensor | None) -> None:
        """From now on give ``weight`` instead of computing it; None computes again."""
        self._held = weight


@dataclass(frozen=True)
class Modulated:
    """Layers that carry a modulation now, by projection name."""

    layers: Mapping[str, tuple[nn.Linear, Modulation]]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Every weight is computed once, on entering, and reused inside; gradients go on to the factors on leaving.

        Inside, each weight is a leaf that collects gradients, so any number of backward passes may run (gradient
        accumulation), and a first use under ``no_grad`` cannot fix a weight without a graph: both fail with
        ``parametrize.cached()``.
        """
        computed = {name: layer.weight for name, (layer, _) in self.layers.items()}
        leaves = {n: w.detach().requires_grad_() for n, w in computed.items() if w.requires_grad}
        for name, (_, modulation) in self.layers.items():
            modulation.hold(leaves.get(name, computed[name]))
        try:
            yield
        finally:
            for _, modulation in self.layers.values():
                modulation.hold(None)
        reached = [name for name, leaf in leaves.items() if leaf.grad is not None]
        if reached:
            torch.autograd.backward([computed[n] for n in reached], [leaves[n].grad for n in reached])


@contextlib.contextmanager
def modulated(projections: Mapping[str, Projection], deltas: Mapping[str, Callable[[], Tensor]]) -> Iterator[Modulated]:
    """Inside, the named layers compute with ``W0 * (1 + dW)``; outside, the original tensors are back untouched.

    Args:
        projections: layers by name.
        deltas: for some or all of them, a function giving the (M, N) dW.
    """
    done: dict[str, tuple[nn.Linear, Modulation]] = {}
    try:
        for name, delta in deltas.items():
            layer, modulation = projections[name].module, Modulation(delta)
            parametrize.register_parametrization(layer, "weight", modulation)
            done[name] = (layer, modulation)
        yield Modulated(done)
    finally:
        for layer, _ in done.values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


@contextlib.contextmanager
def modulated_per_sample(
    projections: Mapping[str, Projection], factors: Mapping[str, Factors], which_B: Tensor | None = None
) -> Iterator[None]:
    """Inside, sample i of every batch of B computes with its own dW: ``factors`` with a leading batch dimension.

    A batch of ``n * B`` (the doubled batch of classifier-free guidance) repeats the factors in order; B = 1 serves
    every sample. The mapping is read at each call, so its owner may replace entries between batches.

    Args:
        projections: the layers to change, by name.
        factors: of each of them.
        which_B: (B,) int64; the factors are then those of K identities, and sample i computes with ``which_B[i]``'s.
    """

    def hook_for(name: str) -> Callable[[Any, Any, Any], Tensor]:
        def hook(layer: nn.Linear, inputs: tuple[Tensor], out: Tensor) -> Tensor:
            return out + per_sample_term(inputs[0], layer.weight, factors[name].of(which_B))

        return hook

    handles = [p.module.register_forward_hook(hook_for(name)) for name, p in projections.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def per_sample_term(x: Tensor, W0: Tensor, factors: Factors) -> Tensor:
    """``sum_k u_k * (W0 (v_k * x))`` for inputs ``x`` (B, ..., N) and batched factors: (B, ..., M)."""
    repeats = x.shape[0] // factors.u.shape[0]
    between = (1,) * (x.dim() - 2)

    def spread(rows_BD: Tensor) -> Tensor:
        return rows_BD.repeat(repeats, 1).view(x.shape[0], *between, -1)

    u, v = factors.u.to(x.dtype), factors.v.to(x.dtype)
    terms = [spread(u[:, k]) * F.linear(x * spread(v[:, k]), W0) for k in range(u.shape[1])]
    return torch.stack(terms).sum(0)
