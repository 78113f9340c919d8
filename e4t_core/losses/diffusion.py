"""The denoising loss, with and without a mask, one value per sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from e4t_core.backbones.base import Backbone
from e4t_core.errors import DataError


def diffusion_loss(prediction_BChw: Tensor, target_BChw: Tensor, mask_B1hw: Tensor | None = None) -> Tensor:
    """``||target - prediction||^2`` per element (E4T eq. 4; Ho et al. 2020 eq. 14).

    Args:
        prediction_BChw: the network's output.
        target_BChw: eps, or v for v-prediction.
        mask_B1hw: weights in [0, 1] at latent resolution, from :func:`latent_mask`; None weighs all alike.

    Returns:
        (B,) float32: each sample's (weighted) mean over its elements, so a batch's mean is independent of its split.
    """
    error = (prediction_BChw.float() - target_BChw.float()).square()
    if mask_B1hw is None:
        return error.flatten(1).mean(1)
    mask = mask_B1hw.to(error).expand_as(error)
    return (mask * error).flatten(1).sum(1) / mask.flatten(1).sum(1)


def latent_mask(masks_B1HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks at latent resolution: each latent cell's weight is the foreground share of the pixels under it.

    Args:
        masks_B1HW: foreground in [0, 1] at image resolution.
        size: latent (h, w).

    Raises:
        DataError: a mask without any foreground, which would leave its sample without a loss.
    """
    masks = F.adaptive_avg_pool2d(masks_B1HW.float(), size)
    empty = torch.nonzero(masks.flatten(1).sum(1) == 0).flatten().tolist()
    if empty:
        raise DataError(
            f"the masks of samples {empty} in a batch of {len(masks)} have no foreground pixel, so nothing is left of "
            "their loss; fix the masks, use stages.mask.missing=full, or turn the mask of the loss off"
        )
    return masks


@dataclass(frozen=True)
class Noisy:
    """Samples with their noise; what belongs to each beside that, a subclass says.

    Attributes:
        x0: (B, C, h, w) latents at the model's scale.
        eps: (B, C, h, w) noise.
        t: (B,) diffusion steps.
    """

    x0: Tensor
    eps: Tensor
    t: Tensor


def draw_noise(backbone: Backbone, moments_B2Chw: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """``x0, eps, t``: samples (B, C, h, w) of the posterior, the noise, and diffusion steps (B,), uniform."""
    batch, device = len(moments_B2Chw), backbone.device
    shape = (batch, *backbone.latent_shape)
    t_B = torch.randint(backbone.schedule.steps, (batch,), generator=rng, device=device)
    posterior, eps = (torch.randn(shape, generator=rng, device=device) for _ in range(2))
    return backbone.to_latent(moments_B2Chw.to(device), posterior), eps, t_B
