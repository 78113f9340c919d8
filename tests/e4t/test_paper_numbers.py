"""Facts of the paper that hold on Stable Diffusion 1.5's configuration, without weights."""

from __future__ import annotations

from typing import Any

import pytest

from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.methods.e4t import E4T, E4TConfig, E4TModule

VIT_H = (16, 1280)


@pytest.fixture(scope="module")
def sd15() -> StableDiffusionBackbone:
    return StableDiffusionBackbone.from_config("sd15", device="meta")


def build(sd15: StableDiffusionBackbone, **fields: Any) -> E4TModule:
    config = E4TConfig(name="e4t", domain_word="face", templates=("a photo of {}",), **fields)
    module = E4T(config).build(sd15, VIT_H)
    assert isinstance(module, E4TModule)
    return module


def count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def test_unet_features(sd15: StableDiffusionBackbone) -> None:
    assert (len(sd15.feature_dims), sum(sd15.feature_dims)) == (13, 10_880)


def test_regularized_offsets(sd15: StableDiffusionBackbone) -> None:
    module = build(sd15)
    assert len(module.offsets.layers) == 96
    shapes = [(p.module.out_features, p.module.in_features) for p in sd15.projections().values()]
    assert count(module.offsets) == sum(1 + 2 * M + 2 * N + N * N + N + M * M + M for M, N in shapes)
    assert round(count(module.offsets) / 1e6) == 143
    assert 3 * sum(M + N for M, N in shapes) == 448_128
    assert sum(M * N for M, N in shapes) / 96 == pytest.approx(715_946.67, abs=0.01)


def test_ablations_build(sd15: StableDiffusionBackbone) -> None:
    assert count(build(sd15, offsets="direct").offsets) == 68_730_880
    assert count(build(sd15, offsets="none").offsets) == 0
    assert len(build(sd15, offsets="hypernetwork").offsets.layers) == 96


@pytest.mark.parametrize(
    ("fields", "inputs"),
    [
        ({}, 16 * (1280 + 10_880)),
        ({"unet_join": "own_levels"}, 16 * 1280 + 10_880),
        ({"iterative_refinement": False}, 16 * 1280),
    ],
)
def test_encoder_inputs(sd15: StableDiffusionBackbone, fields: dict[str, Any], inputs: int) -> None:
    encoder = build(sd15, **fields).encoder
    assert sum(linear.in_features for linear in encoder.levels) == inputs
    assert encoder.final.out_features == 768
