"""The small backbone, every method in a small size, and the check that the backbone is given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from e4t_core.adapters.lidb import LiDBConfig
from e4t_core.methods import METHODS, Method
from e4t_core.methods._prior import PriorConfig
from e4t_core.sampling import SamplerConfig
from tests.e4t.conftest import backbone, backbone_untouched

__all__ = ["backbone", "backbone_untouched"]

FEW = PriorConfig(images=3, sampler=SamplerConfig(steps=1), batch_size=2)

SMALL: dict[str, dict[str, Any]] = {
    "domain_agnostic": {"width": 16, "hyper_width": 8, "rank": 2},
    "dreambooth": {"prior": FEW},
    "lora": {"prior": FEW},
    "hyperdreambooth": {"width": 16, "heads": 2, "iterations": 2, "lidb": LiDBConfig(a=4, b=3)},
}
"""Sizes of the networks that a method would build large; a method that is not here is built as it comes."""


@pytest.fixture
def make_method() -> Callable[..., Method]:
    def make(name: str, **fields: Any) -> Method:
        cls, templates = METHODS.get(name), ("a photo of {}", "{} at night")
        return cls(cls.Config(name=name, domain_word="face", templates=templates, **{**SMALL.get(name, {}), **fields}))

    return make
