"""The autoencoder (LDM section 3.1 without its adversary, whose place a Laplacian pyramid takes at this size)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from jobs._tiny_stack.config import VaeConfig
from jobs._tiny_stack.files import CONFIGS, StackFolder, overridden
from jobs._tiny_stack.part import Part, Step
from jobs._tiny_stack.pool import flipped

_MEASURED, _SLICE = 2048, 64
"""Pictures whose latents give the scale, and how many go through at once."""


class VaePart(Part):
    """Learns to bring pictures to latents and back."""

    name: ClassVar[str] = "vae"

    @property
    def config(self) -> VaeConfig:
        return self.work.stack.vae

    def build(self) -> nn.Module:
        config = overridden(self.work.trained.config("vae"), self.config.model, "stack.vae.model")
        return AutoencoderKL.from_config(config).to(memory_format=torch.channels_last)

    def warm_start(self, module: nn.Module, stack: StackFolder) -> None:
        module.load_state_dict(stack.load("vae"))

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        pool = self.work.pool
        x = flipped(pool.images(pool.draw(step.rng, self.config.batch_size), self.work.device), step.rng)
        return vae_losses(module, x, step, self.config)

    def export(self, module: nn.Module, stack: StackFolder) -> dict[str, Any]:
        """Weights, with the scale that gives latents unit standard deviation in the configuration."""
        vae: Any = module
        scale = round(1 / self._latent_std(vae), 5)
        config = overridden(stack.config("vae"), self.config.model, CONFIGS["vae"])
        stack.save("vae", config | {"scaling_factor": scale}, vae.state_dict())
        return {"scaling_factor": scale}

    def _latent_std(self, vae: Any) -> float:
        pool = self.work.pool
        rows = pool.draw(Step(self.work.seed, "vae scale", 0, 1).rng, min(_MEASURED, len(pool)))
        means = [
            vae.encode(pool.images(rows[i : i + _SLICE], self.work.device)).latent_dist.mean
            for i in range(0, len(rows), _SLICE)
        ]
        return float(torch.cat(means).std())


def vae_losses(vae: Any, x: Tensor, step: Step, config: VaeConfig) -> dict[str, Tensor]:
    """The terms of :class:`~jobs._tiny_stack.config.VaeConfig` for images ``x`` (B, 3, H, W) in [-1, 1]."""
    posterior = vae.encode(x).latent_dist
    mean, std, log_variance = posterior.mean.float(), posterior.std.float(), posterior.logvar.float()
    y = vae.decode(mean + std * step.normal(mean)).sample.float()
    error = y - x
    l1, l2, edges = error.abs().mean(), error.square().mean(), edge_loss(error)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    loss = config.l1 * l1 + config.l2 * l2 + config.edges * edges + config.kl * kl
    return {"loss": loss, "l1": l1, "l2": l2, "edges": edges, "kl": kl}


def edge_loss(error_BCHW: Tensor, levels: int = 3) -> Tensor:
    """``sum_k mean |L_k(error)|``: the Laplacian pyramid is linear, so that of ``x - y`` is the difference of theirs.

    ``L_k`` holds what a level loses when it is halved: lines and edges, whose share of the plain L1 is small because
    they cover few pixels.
    """
    total = error_BCHW.new_zeros(())
    level = error_BCHW
    for _ in range(levels):
        coarse = F.avg_pool2d(level, 2)
        total = total + (level - F.interpolate(coarse, scale_factor=2.0, mode="bilinear")).abs().mean()
        level = coarse
    return total
