"""Triplets (image, object embedding, caption) and the denoising loss over them (Taming Encoder sections 3.2 to 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.errors import DataError
from e4t_core.losses import diffusion_loss
from e4t_core.methods.base import Losses
from e4t_core.methods.taming_encoder.config import TamingEncoderConfig
from e4t_core.methods.taming_encoder.module import TamingEncoderModule


def in_domain(config: TamingEncoderConfig, parts: Sequence[str | None]) -> list[bool]:
    """Whether each sample is of the domain, from the part of the mix that it comes from.

    Raises:
        DataError: the recipe does not say of a part which it is.
    """
    for part in parts:
        if part is not None and part not in config.parts:
            known = ", ".join(config.parts) or "none"
            raise DataError(
                f"part '{part}' of the mix is neither domain nor general: method.parts names {known}; add "
                f"method.parts.{part}"
            )
    return [part is None or config.parts[part] == "domain" for part in parts]


def captions(config: TamingEncoderConfig, batch: Mapping[str, Any], domain: Sequence[bool]) -> list[str]:
    """Each sample's sentence; those of general images are always full (section 3.3)."""
    texts = list(batch["texts"])
    if config.captions == "full":
        return texts
    templates = batch["templates"] if config.captions == "coarse" else ["{}"] * len(texts)
    ours = [template.replace("{}", config.prompt) for template in templates]
    return [mine if inside else text for mine, text, inside in zip(ours, texts, domain, strict=True)]


def objects(
    module: TamingEncoderModule,
    own_BLD: Tensor,
    other_BLD: Tensor,
    crossed_B: Tensor,
    domain_B: Tensor,
) -> Tensor:
    """(B, l, D) what every sample attends to: its own image's embedding or that of another of its identity (eq. 3), and
    the null embedding phi outside the domain (eq. 4).

    Args:
        own_BLD, other_BLD: CLIP levels of the two images.
        crossed_B: True where ``p < omega``.
        domain_B: True for domain images.
    """
    cls_BLD = torch.where(crossed_B[:, None, None], other_BLD, own_BLD)
    return torch.where(domain_B[:, None, None], module.embed(cls_BLD), module.null_LD)


def objective(
    module: TamingEncoderModule,
    backbone: Backbone,
    x0_BChw: Tensor,
    eps_BChw: Tensor,
    t_B: Tensor,
    ids_BT: Tensor,
    object_BLD: Tensor,
) -> Losses:
    """``||eps_theta(x_t, t, c, o) - eps||^2`` (eq. 1): the mean over the batch of each sample's mean over elements."""
    module.attention.see(object_BLD)
    x_t = backbone.schedule.add_noise(x0_BChw, eps_BChw, t_B)
    prediction = backbone.denoise(x_t, t_B, backbone.encode_text(ids_BT))
    diffusion = diffusion_loss(prediction, backbone.schedule.target(x0_BChw, eps_BChw, t_B)).mean()
    return Losses(diffusion, {"diffusion": diffusion})
