"""A small backbone, and the method on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from e4t_core.backbones.base import Backbone
from e4t_core.methods.taming_encoder import TamingEncoder, TamingEncoderConfig, TamingEncoderModule
from tests.e4t.conftest import CLIP_DIMS, backbone, backbone_untouched, batch_of, rng

__all__ = ["backbone", "backbone_untouched"]
Make = Callable[..., TamingEncoder]


@pytest.fixture
def make_method() -> Make:
    def make(**fields: Any) -> TamingEncoder:
        about = {"name": "taming_encoder", "domain_word": "face", "templates": ("a photo of {}",)}
        return TamingEncoder(TamingEncoderConfig(**{**about, **fields}))

    return make


def trained(method: TamingEncoder, backbone: Backbone) -> TamingEncoderModule:
    """A module in which nothing is at its initial zero."""
    module = method.build(backbone, CLIP_DIMS)
    assert isinstance(module, TamingEncoderModule)
    g = rng(11)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.02)
    return module


def pairs(backbone: Backbone, size: int, **fields: Any) -> dict[str, Any]:
    """A loader's batch with another image's embedding beside each."""
    other = batch_of(backbone, size, seed=9)
    return {**batch_of(backbone, size), "reference_clip_cls": other["clip_cls"], **fields}
