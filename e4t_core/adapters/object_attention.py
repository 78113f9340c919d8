"""Object cross-attention (Taming Encoder section 3.1): after every attention to the text, one to an object's embedding.

    h'  = h  + attn(norm(h), text)
    h'' = h' + W_out attn(W_q norm_o(h'), W_k o, W_v o) + b_out

The new layers belong to their module; hooks put them into the denoiser's blocks for a while, and nothing of the blocks
is copied or changed. The null embedding phi is the fixed zero: W_k and W_v have no bias, so it adds b_out and no more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from e4t_core.backbones.base import TextAttention
from e4t_core.models.linear import seeded_linear


class ObjectAttention(nn.Module):
    """One new residual branch; its output projection starts at zero, so that it starts as if it were not there.

    Args:
        width: D of the feature map.
        heads: as the attention before it has.
        object_width: E of an object's tokens.
        attend_null: phi is a key beside the object's own tokens. With a single token and no such key the softmax is
            over one number: it is 1 whatever the query, and norm, W_q and W_k could learn nothing.
        rng: where initial weights are drawn from.
        device: ``cpu``, or ``meta`` to count parameters without memory.
    """

    def __init__(
        self, width: int, heads: int, object_width: int, attend_null: bool, rng: torch.Generator, device: str
    ) -> None:
        super().__init__()
        self.heads, self.attend_null = heads, attend_null
        self.norm = nn.LayerNorm(width, device=device)
        self.to_q = seeded_linear(width, width, rng, bias=False, device=device)
        self.to_k = seeded_linear(object_width, width, rng, bias=False, device=device)
        self.to_v = seeded_linear(object_width, width, rng, bias=False, device=device)
        self.to_out = seeded_linear(width, width, rng, zero=True, device=device)

    def forward(self, h_BND: Tensor, object_BLE: Tensor) -> Tensor:
        """(B, N, D) what is added to the feature map, in its type; weights may be of another."""
        if self.attend_null:
            object_BLE = F.pad(object_BLE, (0, 0, 1, 0))  # phi is zero
        x = F.layer_norm(h_BND.float(), self.norm.normalized_shape, self.norm.weight.float(), self.norm.bias.float())
        q, k, v = (
            _linear(layer, states.to(h_BND.dtype)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, states in ((self.to_q, x), (self.to_k, object_BLE), (self.to_v, object_BLE))
        )
        met = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return _linear(self.to_out, met).to(h_BND.dtype)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))


class ObjectAttentions(nn.Module):
    """A new branch for every cross-attention of a denoiser.

    Args:
        sites: from :meth:`Backbone.text_attentions`.
        object_width: E of an object's tokens.
        attend_null: see :class:`ObjectAttention`.
        rng: where initial weights are drawn from, site after site.
        device: ``cpu``, or ``meta``.
    """

    def __init__(
        self,
        sites: Mapping[str, TextAttention],
        object_width: int,
        attend_null: bool,
        rng: torch.Generator,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                name.replace(".", "/"): ObjectAttention(site.width, site.heads, object_width, attend_null, rng, device)
                for name, site in sites.items()
            }
        )
        self._object_BLE: Tensor | None = None

    def see(self, object_BLE: Tensor) -> None:
        """From now on, and in what a backward pass computes anew, every sample attends to its own row."""
        self._object_BLE = object_BLE

    @contextlib.contextmanager
    def on(self, sites: Mapping[str, TextAttention]) -> Iterator[None]:
        """Inside, the denoiser has the new branches; outside it is as it was, and no object is remembered."""
        with contextlib.ExitStack() as hooks:
            for name, site in sites.items():
                self._put(hooks, site, self.layers[name.replace(".", "/")])
            try:
                yield
            finally:
                self._object_BLE = None

    def _put(self, hooks: contextlib.ExitStack, site: TextAttention, layer: nn.Module) -> None:
        streams: list[Tensor] = []

        def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
            streams[:] = [args[0]]

        def after(_module: nn.Module, _args: tuple[Any, ...], out: Tensor) -> Tensor:
            if self._object_BLE is None:
                raise RuntimeError("no object was given: call see() before the denoiser runs")
            added: Tensor = layer(streams.pop() + out, self._object_BLE)
            return out + added

        hooks.callback(site.norm.register_forward_pre_hook(before).remove)
        hooks.callback(site.attention.register_forward_hook(after).remove)
