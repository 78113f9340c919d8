"""A small backbone, and the method in a small size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from e4t_core.methods.hyperdreambooth import HyperDreamBooth, HyperDreamBoothConfig, PersonalizeConfig
from tests.e4t.conftest import backbone, backbone_untouched
from tests.methods.conftest import SMALL

__all__ = ["backbone", "backbone_untouched"]
Make = Callable[..., HyperDreamBooth]


@pytest.fixture
def make_method() -> Make:
    def make(**fields: Any) -> HyperDreamBooth:
        about = {"name": "hyperdreambooth", "domain_word": "face", "templates": ("a photo of {}",)}
        return HyperDreamBooth(HyperDreamBoothConfig(**{**about, **SMALL["hyperdreambooth"], **fields}))

    return make


def short(**fields: Any) -> PersonalizeConfig:
    return PersonalizeConfig(**({"steps": 2, "samples": 2, "rank": 2, "probe": 1} | fields))
