"""Eq. 2 on samples whose noise is already drawn: a function without randomness."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.errors import DataError
from e4t_core.losses import Noisy, diffusion_loss
from e4t_core.methods.base import Losses
from e4t_core.methods.hyperdreambooth.config import HyperDreamBoothConfig
from e4t_core.methods.hyperdreambooth.module import HyperDreamBoothModule


@dataclass(frozen=True)
class NoisyBatch(Noisy):
    """Images with their noise, the prompt, CLIP features and targets.

    Attributes:
        ids: (B, T) tokens of the supervisory prompt.
        cls, tokens: (B, L, D) and (B, T, D) CLIP features of the image.
        target: (B, P) pre-optimized theta, or None where beta is 0.
        mask: (B, 1, h, w) weights at latent resolution, or None.
    """

    ids: Tensor
    cls: Tensor
    tokens: Tensor
    target: Tensor | None = None
    mask: Tensor | None = None


def objective(
    config: HyperDreamBoothConfig,
    module: HyperDreamBoothModule,
    backbone: Backbone,
    batch: NoisyBatch,
    scope: contextlib.ExitStack,
) -> Losses:
    """``L(x) = alpha ||D_{theta_hat}(x + eps, c) - x||^2 + beta ||theta_hat - theta||^2`` (eq. 2): means over the batch
    of per-sample values, the first a mean over a sample's elements, the second a sum of squares over theta.

    Args:
        scope: in which the predicted weights stay on the backbone; nothing may be on when it is called.
    """
    theta_BP = module(batch.cls, batch.tokens)
    terms: dict[str, Tensor] = {}
    total = theta_BP.new_zeros(())
    if config.alpha:
        terms["diffusion"] = _diffusion(module, backbone, batch, theta_BP, scope).mean()
        total = total + config.alpha * terms["diffusion"]
    if batch.target is not None:
        terms["distance"] = (theta_BP - batch.target).square().sum(1).mean()
        total = total + config.beta * terms["distance"]
    return Losses(total, terms)


def _diffusion(
    module: HyperDreamBoothModule,
    backbone: Backbone,
    batch: NoisyBatch,
    theta_BP: Tensor,
    scope: contextlib.ExitStack,
) -> Tensor:
    """(B,) denoising losses, each sample computed with the weights that were predicted for it."""
    x_t = backbone.schedule.add_noise(batch.x0, batch.eps, batch.t)
    scope.enter_context(module.weights.on(module.initial_P + theta_BP, {}))
    prediction = backbone.denoise(x_t, batch.t, backbone.encode_text(batch.ids))
    return diffusion_loss(prediction, backbone.schedule.target(batch.x0, batch.eps, batch.t), batch.mask)


def targets_of(module: HyperDreamBoothModule, lidb_BP: Tensor) -> Tensor:
    """(B, P) theta of the pre-optimized weights that column ``lidb`` holds.

    Raises:
        DataError: they are not of this module's space.
    """
    if lidb_BP.shape[1] != len(module.initial_P):
        raise DataError(
            f"column 'lidb' holds {lidb_BP.shape[1]} numbers an identity, and method.lidb with this backbone has "
            f"{len(module.initial_P)}; run targets with this recipe"
        )
    return lidb_BP.to(module.initial_P) - module.initial_P
