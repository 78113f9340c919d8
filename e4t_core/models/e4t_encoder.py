"""E4T's encoder: CLIP [CLS] levels and pooled UNet features to one word-embedding offset (E4T section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from e4t_core.models.linear import seeded_linear

UnetJoin = Literal["per_level", "own_levels"]


class E4TEncoder(nn.Module):
    """``E(I_c, x_t, t)``: one linear per level, mean over levels, LeakyReLU, final linear.

    Args:
        clip_dims: (L, D), levels and width of the [CLS] features.
        feature_dims: channels of each pooled UNet tensor (sum is F); empty means no iterative refinement.
        out_width: width of a word embedding.
        width: width inside.
        unet_join: ``per_level`` concatenates all UNet features to every [CLS] level; ``own_levels`` makes each UNet
            tensor a level of its own with its own linear. The paper only says that they are concatenated.
        zero_final: start with E = 0, so that step 0 is the backbone prompted with the domain word.
        rng: where the initial weights come from.
        device: ``cpu`` or ``meta``.
    """

    def __init__(
        self,
        clip_dims: tuple[int, int],
        feature_dims: Sequence[int],
        out_width: int,
        *,
        width: int,
        unet_join: UnetJoin,
        zero_final: bool,
        rng: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        levels, clip_width = clip_dims
        self.feature_dims, self.unet_join = tuple(feature_dims), unet_join
        joined = sum(feature_dims) if unet_join == "per_level" else 0
        own = self.feature_dims if unet_join == "own_levels" else ()
        inputs = [clip_width + joined] * levels + list(own)
        self.levels = nn.ModuleList(seeded_linear(n, width, rng, device=device) for n in inputs)
        self.final = seeded_linear(width, out_width, rng, zero=zero_final, device=device)

    def forward(self, cls_BLD: Tensor, features_BF: Tensor | None = None) -> Tensor:
        """Predict the embedding offset.

        Args:
            cls_BLD: [CLS] of the configured CLIP layers.
            features_BF: pooled UNet features; None exactly if the encoder was built without them.

        Returns:
            (B, out_width) ``E``, before the scale of eq. 1.
        """
        inputs = list(cls_BLD.float().unbind(1))
        if features_BF is not None:
            features = features_BF.float()
            if self.unet_join == "per_level":
                inputs = [torch.cat([level, features], dim=1) for level in inputs]
            else:
                inputs += features.split(self.feature_dims, dim=1)
        projected = [linear(x) for linear, x in zip(self.levels, inputs, strict=True)]
        return self.final(F.leaky_relu(torch.stack(projected).mean(0)))
