"""Latent diffusion sampling with classifier-free guidance; the samplers themselves are diffusers'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.errors import UsageError
from e4t_core.methods.base import Conditioning, ObjectConditioning
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
            :meth:`~e4t_core.methods.base.Conditioning.denoise` gets a doubled batch, negative branch first; with a
            weight of its own for the object a threefold one.
        seeds: each image's initial noise comes from its own seed alone and is drawn on the CPU, so neither its
            company in the batch nor the device changes it.
        on_step: called after each step with the number of steps done.

    Returns:
        (B, 3, H, W) images in [-1, 1], float32, on the backbone's device.

    Raises:
        UsageError: ``cfg.object_guidance`` is given and there is no object.
    """
    chain = _chain(cfg, conditioning)
    scheduler = build_scheduler(backbone, cfg)
    with conditioning.applied():
        negative = conditioning.negative(cfg.negative_prompt) if len(chain) > 1 else None
        x_BChw = initial_noise(backbone.latent_shape, seeds).to(backbone.device) * scheduler.init_noise_sigma
        for step, t in enumerate(scheduler.timesteps):
            t_B = t.to(backbone.device).expand(len(seeds))
            scaled = scheduler.scale_model_input(x_BChw, t)
            text_BTD = conditioning.text(scaled, t_B, step)
            prediction = _guided(conditioning, scaled, t_B, text_BTD, negative, chain)
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


@dataclass(frozen=True)
class _Branch:
    """What one evaluation of the network is given, and the weight of its difference from the one before it."""

    object: bool
    prompt: bool
    weight: float = 1.0


def _chain(cfg: SamplerConfig, conditioning: Conditioning) -> list[_Branch]:
    """``eps_0 + sum_i w_i (eps_i - eps_{i-1})``, from the least conditioned branch to (o, c), which is always the last.
    Where two weights are equal, what is between them cancels out and is not computed."""
    w, s_o = cfg.guidance, cfg.object_guidance
    if s_o is not None and not isinstance(conditioning, ObjectConditioning):
        raise UsageError(
            f"sampler.object_guidance is {s_o:g}, but {type(conditioning).__name__} has no object beside the text; "
            "leave it out for this method"
        )
    if s_o is None or s_o == w:
        nothing = _Branch(object=not isinstance(conditioning, ObjectConditioning), prompt=False)
        return [*([nothing] if w != 1 else []), _Branch(True, True, w)]
    blank = _Branch(object=True, prompt=False, weight=s_o)
    return [*([_Branch(object=False, prompt=False)] if s_o != 1 else []), blank, _Branch(True, True, w)]


def _guided(
    conditioning: Conditioning,
    x_BChw: Tensor,
    t_B: Tensor,
    text_BTD: Tensor,
    negative: Tensor | None,
    chain: Sequence[_Branch],
) -> Tensor:
    """All branches as one batch, the least conditioned first; plain ``eps`` if there is but one."""
    many = len(chain)
    x, t, text = x_BChw.repeat(many, 1, 1, 1), t_B.repeat(many), text_BTD
    if negative is not None:
        away = negative.to(text_BTD.dtype).expand_as(text_BTD)
        text = torch.cat([text_BTD if branch.prompt else away for branch in chain])
    if isinstance(conditioning, ObjectConditioning):
        seeing = torch.tensor([branch.object for branch in chain], device=x.device)
        out = conditioning.denoise_seeing(x, t, text, seeing.repeat_interleave(len(t_B)))
    else:
        out = conditioning.denoise(x, t, text)
    parts = out.chunk(many)
    guided = parts[0]
    for before, after, branch in zip(parts, parts[1:], chain[1:], strict=False):
        guided = guided + branch.weight * (after - before)
    return guided
