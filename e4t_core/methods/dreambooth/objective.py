"""DreamBooth's objective on samples whose noise is already drawn: a function without randomness."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.losses import Noisy, diffusion_loss
from e4t_core.methods.base import Losses


@dataclass(frozen=True)
class NoisyBatch(Noisy):
    """Samples with their noise, under one prompt.

    Attributes:
        text: (1, T, D) states of the prompt.
        mask: (B, 1, h, w) weights of the loss, or None.
    """

    text: Tensor
    mask: Tensor | None = None


def objective(backbone: Backbone, own: NoisyBatch, others: NoisyBatch | None, weight: float = 1.0) -> Losses:
    """Eq. 2, each term the mean over its samples: ``||eps - eps_theta(x_t, c)||^2``, plus ``weight`` (lambda) times the
    same of images that the untouched model drew of the class, ``others``."""
    diffusion = _denoising(backbone, own)
    if others is None:
        return Losses(diffusion, {"diffusion": diffusion})
    prior = _denoising(backbone, others)
    return Losses(diffusion + weight * prior, {"diffusion": diffusion, "prior": prior})


def _denoising(backbone: Backbone, batch: NoisyBatch) -> Tensor:
    x_t = backbone.schedule.add_noise(batch.x0, batch.eps, batch.t)
    prediction = backbone.denoise(x_t, batch.t, batch.text.expand(len(x_t), -1, -1))
    return diffusion_loss(prediction, backbone.schedule.target(batch.x0, batch.eps, batch.t), batch.mask).mean()
