"""What E4T trains: the encoder and the weight offsets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from e4t_core.adapters.weight_offsets import build_offsets
from e4t_core.backbones.base import Backbone
from e4t_core.methods.e4t.config import E4TConfig
from e4t_core.models.e4t_encoder import E4TEncoder


class E4TModule(nn.Module):
    """Encoder and weight offsets for one backbone, on its device.

    Attributes:
        signature: what must be equal for weights to fit; a checkpoint carries it and loading compares it.
    """

    domain_D: Tensor

    def __init__(self, config: E4TConfig, backbone: Backbone, clip_dims: tuple[int, int]) -> None:
        super().__init__()
        target = backbone.token_table.device
        device = "meta" if target.type == "meta" else "cpu"  # the same draws wherever it will run
        rng = torch.Generator().manual_seed(config.init_seed)
        self.scale = config.scale
        self.encoder = E4TEncoder(
            clip_dims,
            backbone.feature_dims if config.iterative_refinement else (),
            backbone.text_width,
            width=config.width or backbone.text_width,
            unet_join=config.unet_join,
            zero_final=config.zero_init,
            rng=rng,
            device=device,
        )
        self.offsets = build_offsets(
            config.offsets,
            backbone.projections(("q", "k", "v")),
            v0_size=config.v0_size,
            clip_width=clip_dims[1],
            rng=rng,
            device=device,
        )
        self.signature = _signature(config, backbone, clip_dims)
        domain = backbone.token_embedding(config.domain_word).detach().to(device, torch.float32)
        self.register_buffer("domain_D", domain, persistent=False)
        self.to(target)

    def concept(self, offset_BD: Tensor) -> Tensor:
        """(B, D) ``e_c = e_domain + s * E`` (eq. 1)."""
        return self.domain_D + self.scale * offset_BD


def _signature(config: E4TConfig, backbone: Backbone, clip_dims: tuple[int, int]) -> dict[str, Any]:
    fields = ("domain_word", "scale", "offsets", "v0_size", "iterative_refinement", "unet_join", "width")
    ours = {f"method.{name}": getattr(config, name) for name in fields}
    theirs = {f"backbone.{part}": content for part, content in backbone.identity().items()}
    return {"method.name": "e4t", **ours, **theirs, "clip.levels": clip_dims[0], "clip.width": clip_dims[1]}
