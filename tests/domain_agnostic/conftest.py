"""A small backbone, and the method in a small size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from e4t_core.backbones.base import Backbone
from e4t_core.methods.domain_agnostic import (
    DomainAgnostic,
    DomainAgnosticConfig,
    DomainAgnosticModule,
    PersonalizeConfig,
)
from tests.e4t.conftest import CLIP_DIMS, backbone, backbone_untouched, rng
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
