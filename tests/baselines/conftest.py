"""A small backbone, and the three methods in a small size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

from e4t_core.backbones.base import Backbone
from e4t_core.methods import METHODS, Adapter, Identity, Method
from e4t_core.sampling import SamplerConfig, sample
from tests.e4t.conftest import CLIP_DIMS, backbone, backbone_untouched
from tests.methods.conftest import SMALL

__all__ = ["CLIP_DIMS", "backbone", "backbone_untouched"]
Make = Callable[..., Method]
NOTHING = nn.Module()
"""What these methods pre-train."""
SAMPLER = SamplerConfig(steps=2, guidance=2.0)


@pytest.fixture
def make_method() -> Make:
    """``personalize`` is given as a mapping of what differs from a tuning of two steps."""

    def make(name: str, personalize: dict[str, Any] | None = None, **fields: Any) -> Method:
        kind = METHODS.get(name)
        whole = kind.Config.model_fields["personalize"].default
        short = {k: v for k, v in {"steps": 2, "samples": 2, "probe": 1}.items() if k in type(whole).model_fields}
        tuning = whole.model_copy(update={**short, **(personalize or {})})
        about = {"name": name, "domain_word": "face", "templates": ("a photo of {}", "{} at night")}
        return kind(kind.Config(**{**about, **SMALL.get(name, {}), "personalize": tuning, **fields}))

    return make


def learned(method: Method, backbone: Backbone, *people: Identity) -> list[Adapter]:
    return method.personalize(NOTHING, backbone, people)


def draw(method: Method, backbone: Backbone, adapter: Adapter, one: Identity, prompt: str = "a photo of {}") -> Tensor:
    words = prompt.replace("{}", backbone.placeholder)
    return sample(backbone, method.conditioning(NOTHING, backbone, adapter, one, [words]), SAMPLER, seeds=[4])
