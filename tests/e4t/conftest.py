"""One small backbone for all tests of this folder, and the inputs that methods take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.methods import METHODS, Identity, Method

CLIP_DIMS = (3, 24)
CLIP_TOKENS = 9
"""A square grid."""
RESOLUTION = 32


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return load_backbone(BackboneConfig(path="bundled:tiny", random_seed=0, resolution=RESOLUTION))


@pytest.fixture(autouse=True)
def backbone_untouched(request: pytest.FixtureRequest) -> Any:
    """Whatever a test does to the shared backbone, it must be bit for bit as before afterwards."""
    if "backbone" not in request.fixturenames:
        yield
        return
    backbone: Backbone = request.getfixturevalue("backbone")
    before = snapshot(backbone)
    yield
    assert_same(before, snapshot(backbone))
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    changed = [name for name in one if not torch.equal(one[name], other[name])]
    assert not changed, changed


@pytest.fixture
def make_method() -> Callable[..., Method]:
    def make(name: str = "e4t", **fields: Any) -> Method:
        cls = METHODS.get(name)
        return cls(cls.Config(name=name, domain_word="face", templates=("a photo of {}", "{} at night"), **fields))

    return make


def batch_of(backbone: Backbone, size: int, seed: int = 0) -> dict[str, Any]:
    """A loader's batch of noise images."""
    g, (channels, h, w) = rng(seed), backbone.latent_shape
    return {
        "keys": [f"{i:032x}" for i in range(size)],
        "latent_moments": torch.randn(size, 2 * channels, h, w, generator=g),
        "clip_cls": torch.randn(size, *CLIP_DIMS, generator=g),
        "masks": (torch.rand(size, 1, RESOLUTION, RESOLUTION, generator=g) > 0.4).float(),
        "texts": [("a photo of a face, calm", "a sketch of a cat in the snow")[i % 2] for i in range(size)],
        "parts": [None] * size,
        "templates": [("a photo of {}", "a sketch of {} in the snow")[i % 2] for i in range(size)],
        "images": torch.rand(size, 3, RESOLUTION, RESOLUTION, generator=g) * 2 - 1,
        "clip_tokens": torch.randn(size, CLIP_TOKENS, CLIP_DIMS[1], generator=g),
    }


def identity_of(name: str, seed: int, images: int = 1) -> Identity:
    g = rng(1000 + seed)
    low = torch.rand(images, 3, 4, 4, generator=g) * 2 - 1
    masks = torch.zeros(images, 1, RESOLUTION, RESOLUTION)
    masks[:, :, 8:24, 8:24] = 1
    return Identity(
        id=name,
        images_N3HW=torch.nn.functional.interpolate(low, size=RESOLUTION, mode="bilinear"),
        clip_cls_NLD=torch.randn(images, *CLIP_DIMS, generator=g),
        masks_N1HW=masks,
        seed=seed,
        clip_tokens_NTD=torch.randn(images, CLIP_TOKENS, CLIP_DIMS[1], generator=g),
    )


class Fixed:
    """An endless loader over a few batches, with a position."""

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        self.batches, self.position = batches, 0

    def __iter__(self) -> Fixed:
        return self

    def __next__(self) -> dict[str, Any]:
        self.position += 1
        return self.batches[(self.position - 1) % len(self.batches)]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
