"""What Taming Encoder trains: the new attention layers, and the whole denoiser with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from e4t_core.adapters.borrowed import replaced
from e4t_core.adapters.object_attention import ObjectAttentions
from e4t_core.backbones.base import Backbone
from e4t_core.errors import UsageError
from e4t_core.methods.taming_encoder.config import TamingEncoderConfig


class TamingEncoderModule(nn.Module):
    """The denoiser's weights as float32 copies of the backbone's own, and the layers that attend to the object.

    Attributes:
        attention: the new layers.
        denoiser: what takes the place of the backbone's weights, by their names; empty where these stay as they are.
        null: (l, D) phi, the embedding of no object: zero, and fixed.
        signature: what must be equal for weights to fit; a checkpoint carries it and loading compares it.
    """

    null_LD: Tensor

    def __init__(self, config: TamingEncoderConfig, backbone: Backbone, clip_dims: tuple[int, int]) -> None:
        super().__init__()
        levels, width = clip_dims
        if config.levels > levels:
            raise UsageError(f"method.levels is {config.levels}, and CLIP features have {levels} levels (clip.every)")
        target = backbone.token_table.device
        device = "meta" if target.type == "meta" else "cpu"  # the same draws wherever it will run
        rng = torch.Generator().manual_seed(config.init_seed)
        self.attention = ObjectAttentions(backbone.text_attentions(), width, config.attend_null, rng, device)
        self.denoiser = nn.ParameterDict()
        if config.tune == "all":
            for name, p in backbone.denoiser_parameters().items():
                self.denoiser[name.replace(".", "/")] = nn.Parameter(p.detach().to(torch.float32, copy=True))
        self.register_buffer("null_LD", torch.zeros(config.levels, width, device=device), persistent=False)
        self.signature = _signature(config, backbone, clip_dims)
        self.to(target)

    def embed(self, cls_BLD: Tensor) -> Tensor:
        """(B, l, D) object embeddings, of one scale whatever the encoder's: its [CLS] under a layer norm without
        weights. Zero, the null embedding, stays zero."""
        return F.layer_norm(cls_BLD[:, -len(self.null_LD) :].float(), cls_BLD.shape[-1:])

    @contextlib.contextmanager
    def on(self, backbone: Backbone, dtype: torch.dtype | None = None) -> Iterator[None]:
        """Inside, the backbone computes with these weights and layers; outside it is as it was, bit for bit.

        Args:
            dtype: what the denoiser's weights are rounded to, without gradients; None trains them as they are.
        """
        weights = {name.replace("/", "."): p for name, p in self.denoiser.items()}
        if dtype is not None:
            weights = {n: nn.Parameter(p.detach().to(dtype), requires_grad=False) for n, p in weights.items()}
        own = replaced(backbone, backbone.denoiser_parameters(), weights)
        with own, self.attention.on(backbone.text_attentions()):
            yield


def _signature(config: TamingEncoderConfig, backbone: Backbone, clip_dims: tuple[int, int]) -> dict[str, Any]:
    ours = {f"method.{name}": getattr(config, name) for name in ("tune", "levels", "attend_null")}
    theirs = {f"backbone.{part}": content for part, content in backbone.identity().items()}
    return {"method.name": "taming_encoder", **ours, **theirs, "clip.width": clip_dims[1]}
