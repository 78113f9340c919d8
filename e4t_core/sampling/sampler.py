"""Latent diffusion sampling with classifier-free guidance; the samplers themselves are diffusers'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.methods.base import Conditioning
from e4t_core.sampling.config import SamplerConfig


@torch.no_grad()
def sample(
    backbone: Backbone,
    conditioning: Conditioning,
    cfg: SamplerConfig,
    seeds: Sequence[int],
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Draw one image per seed.

    Args:
        conditioning: text states of ``len(seeds)`` prompts at every step. With guidance its
            :meth:`~e4t_core.methods.base.Conditioning.denoise` gets a doubled batch, negative branch first.
        seeds: each image's initial noise comes from its own seed alone and is drawn on the CPU, so neither its
            company in the batch nor the device changes it.
        on_step: called after each step with the number of steps done.

    Returns:
        (B, 3, H, W) images in [-1, 1], float32, on the backbone's device.
    """
    scheduler = build_scheduler(backbone, cfg)
    with conditioning.applied():
        negative_1TD = _negative(backbone, cfg)
        x_BChw = initial_noise(backbone.latent_shape, seeds).to(backbone.device) * scheduler.init_noise_sigma
        for step, t in enumerate(scheduler.timesteps):
            t_B = t.to(backbone.device).expand(len(seeds))
            scaled = scheduler.scale_model_input(x_BChw, t)
            text_BTD = conditioning.text(scaled, t_B, step)
            prediction = _guided(conditioning, scaled, t_B, text_BTD, negative_1TD, cfg.guidance)
            x_BChw = scheduler.step(prediction, t, x_BChw).prev_sample
            if on_step is not None:
                on_step(step + 1)
    return backbone.to_image(x_BChw)


def build_scheduler(backbone: Backbone, cfg: SamplerConfig) -> Any:
    """diffusers' scheduler for this model's noise levels and prediction type, set to ``cfg.steps``."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler  # reading a recipe imports this module too

    if cfg.scheduler == "ddim":
        scheduler = DDIMScheduler.from_config(backbone.scheduler_config)
    else:
        scheduler = DPMSolverMultistepScheduler.from_config(backbone.scheduler_config, algorithm_type="dpmsolver++")
    scheduler.set_timesteps(cfg.steps)
    return scheduler


def initial_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> Tensor:
    """(B, C, h, w) standard normal float32 noise, each image from its own generator."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _negative(backbone: Backbone, cfg: SamplerConfig) -> Tensor | None:
    """(1, T, D) text states of the negative branch, or None where there is none."""
    if cfg.guidance == 1:
        return None
    return backbone.encode_text(backbone.tokenize([cfg.negative_prompt]))


def _guided(
    conditioning: Conditioning, x_BChw: Tensor, t_B: Tensor, text_BTD: Tensor, negative_1TD: Tensor | None, w: float
) -> Tensor:
    """``eps_neg + w (eps - eps_neg)`` from one doubled batch; plain ``eps`` without a negative branch."""
    if negative_1TD is None:
        return conditioning.denoise(x_BChw, t_B, text_BTD)
    text = torch.cat([negative_1TD.to(text_BTD.dtype).expand_as(text_BTD), text_BTD])
    both = conditioning.denoise(x_BChw.repeat(2, 1, 1, 1), t_B.repeat(2), text)
    negative, positive = both.chunk(2)
    return negative + w * (positive - negative)
