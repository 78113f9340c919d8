"""Modules and batches for the tests of E4T."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.methods import Adapter, Identity, Method
from e4t_core.methods.e4t import E4TModule, PersonalizeConfig
from e4t_core.methods.e4t.objective import NoisyBatch, noisy_batch, with_placeholder
from e4t_core.sampling import SamplerConfig, sample
from tests.e4t.conftest import CLIP_DIMS, batch_of, rng

QKV = ("q", "k", "v")


def short(**fields: Any) -> PersonalizeConfig:
    return PersonalizeConfig(**({"steps": 2, "batch_size": 2, "base_lr": 1e-4, "save_dtype": "float32"} | fields))


def pretrained(method: Method, backbone: Backbone) -> E4TModule:
    """A module in which nothing is at its initial zero."""
    module = method.build(backbone, CLIP_DIMS)
    assert isinstance(module, E4TModule)
    g = rng(11)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.02)
    return module


def noisy(backbone: Backbone, size: int = 4, masked: bool = False) -> NoisyBatch:
    batch = batch_of(backbone, size)
    mask = torch.rand(size, 1, *backbone.latent_shape[1:], generator=rng(5)) if masked else None
    prompts = with_placeholder(backbone, batch["templates"])
    return noisy_batch(backbone, batch["latent_moments"], prompts, batch["clip_cls"], mask, rng(6))


def draw(method: Method, module: E4TModule, backbone: Backbone, adapter: Adapter, identity: Identity) -> Tensor:
    conditioning = method.conditioning(module, backbone, adapter, identity, [f"a photo of {backbone.placeholder}"])
    return sample(backbone, conditioning, SamplerConfig(steps=2, guidance=2.0), seeds=[4])
