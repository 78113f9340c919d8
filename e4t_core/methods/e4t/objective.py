"""E4T's objective (eq. 5) on samples whose noise is already drawn: a function without randomness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.losses import Noisy, diffusion_loss, draw_noise, embedding_l2
from e4t_core.methods.base import Losses
from e4t_core.methods.e4t.config import E4TConfig
from e4t_core.methods.e4t.module import E4TModule


@dataclass(frozen=True)
class NoisyBatch(Noisy):
    """Samples with their noise, prompts and CLIP features.

    Attributes:
        ids: (B, T) tokens of prompts that hold the placeholder.
        cls: (B, L, D) CLIP [CLS] levels of the concept image.
        mask: (B, 1, h, w) weights at latent resolution, or None.
    """

    ids: Tensor
    cls: Tensor
    mask: Tensor | None = None

    def split(self, size: int) -> list[NoisyBatch]:
        """Pieces of at most ``size`` samples."""
        parts = {f: getattr(self, f).split(size) for f in ("x0", "eps", "t", "ids", "cls")}
        masks = self.mask.split(size) if self.mask is not None else [None] * len(parts["t"])
        return [replace(self, mask=m, **{f: p[i] for f, p in parts.items()}) for i, m in enumerate(masks)]


def noisy_batch(
    backbone: Backbone,
    moments_B2Chw: Tensor,
    prompts: Sequence[str],
    cls_BLD: Tensor,
    mask_B1hw: Tensor | None,
    rng: torch.Generator,
) -> NoisyBatch:
    """Samples with what :func:`~e4t_core.losses.draw_noise` draws from ``rng``."""
    x0, eps, t_B = draw_noise(backbone, moments_B2Chw, rng)
    ids = backbone.tokenize(prompts).to(backbone.device)
    return NoisyBatch(x0, eps, t_B, ids, cls_BLD.to(backbone.device), mask_B1hw)


def with_placeholder(backbone: Backbone, templates: Sequence[str]) -> list[str]:
    """Templates with the backbone's placeholder where ``{}`` is."""
    return [template.replace("{}", backbone.placeholder) for template in templates]


def predict_offset(
    config: E4TConfig, module: E4TModule, backbone: Backbone, cls_BLD: Tensor, x_t_BChw: Tensor, t_B: Tensor
) -> Tensor:
    """(B, D) ``E(I_c, x_t, t)``; without iterative refinement ``E(I_c)``."""
    if not config.iterative_refinement:
        return module.encoder(cls_BLD)
    return module.encoder(cls_BLD, backbone.features(x_t_BChw, t_B, grad=config.feature_grad))


def objective(config: E4TConfig, module: E4TModule, backbone: Backbone, batch: NoisyBatch, reg_weight: float) -> Losses:
    """``L = L_diffusion + lambda_r ||E||^2`` (eq. 5), means over the batch of per-sample values."""
    x_t = backbone.schedule.add_noise(batch.x0, batch.eps, batch.t)
    module.offsets.condition(batch.cls)
    offset_BD = predict_offset(config, module, backbone, batch.cls, x_t, batch.t)
    text_BTD = backbone.encode_text(batch.ids, module.concept(offset_BD))
    prediction = backbone.denoise(x_t, batch.t, text_BTD)
    target = backbone.schedule.target(batch.x0, batch.eps, batch.t)

    diffusion = diffusion_loss(prediction, target, batch.mask).mean()
    regularization = embedding_l2(offset_BD).mean()
    weight = reg_weight if config.embedding_regularization else 0.0
    total = diffusion + weight * regularization
    return Losses(total, {"diffusion": diffusion, "regularization": regularization})
