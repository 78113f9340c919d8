"""A small backbone, and the method in a small size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.methods import Adapter
from e4t_core.methods.domain_agnostic import (
    DomainAgnostic,
    DomainAgnosticConfig,
    DomainAgnosticModule,
    PersonalizeConfig,
)
from e4t_core.sampling import SamplerConfig, sample
from tests.e4t.conftest import CLIP_DIMS, backbone, backbone_untouched, identity_of, rng
from tests.methods.conftest import SMALL

__all__ = ["backbone", "backbone_untouched"]
Make = Callable[..., DomainAgnostic]


@pytest.fixture
def make_method() -> Make:
    def make(**fields: Any) -> DomainAgnostic:
        about = {"name": "domain_agnostic", "domain_word": "face", "templates": ("a photo of {}", "{} at night")}
        return DomainAgnostic(DomainAgnosticConfig(**{**about, **SMALL["domain_agnostic"], **fields}))

    return make


def short(**fields: Any) -> PersonalizeConfig:
    return PersonalizeConfig(**({"steps": 2, "samples": 2, "probe": 1} | fields))


def built(method: DomainAgnostic, backbone: Backbone) -> DomainAgnosticModule:
    module = method.build(backbone, CLIP_DIMS)
    assert isinstance(module, DomainAgnosticModule)
    return module


def stirred(module: DomainAgnosticModule, by: float = 0.05) -> DomainAgnosticModule:
    """As if trained: nothing is at its initial zero."""
    g = rng(3)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=g) * by)
    return module


@contextlib.contextmanager
def in_step(method: DomainAgnostic, module: DomainAgnosticModule, backbone: Backbone) -> Iterator[None]:
    with method.pretraining(module, backbone), method.step(module):
        yield


def ready(make_method: Make, backbone: Backbone, **fields: Any) -> tuple[DomainAgnostic, DomainAgnosticModule]:
    outer = {name: fields.pop(name) for name in list(fields) if name in DomainAgnostic.Config.model_fields}
    method = make_method(personalize=short(**fields), **outer)
    return method, stirred(built(method, backbone))


def draw(method: DomainAgnostic, module: DomainAgnosticModule, backbone: Backbone, adapter: Adapter) -> Tensor:
    prompts = [f"a photo of {backbone.placeholder}"]
    conditioning = method.conditioning(module, backbone, adapter, identity_of("ann", 1), prompts)
    return sample(backbone, conditioning, SamplerConfig(steps=2, guidance=2.0, scheduler="ddim"), [4])
