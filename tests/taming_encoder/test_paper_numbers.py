"""Facts of the paper on Stable Diffusion 1.5's configuration, without weights."""

from __future__ import annotations

from typing import Any

import pytest

from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.methods.taming_encoder import TamingEncoderModule
from jobs._recipe import load
from tests.taming_encoder.conftest import Make

UNET = 859_520_964


@pytest.fixture(scope="module")
def sd15() -> StableDiffusionBackbone:
    return StableDiffusionBackbone.from_config("sd15", device="meta")


def count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def closed_form(width: int) -> int:
    """Norm, bias-free W_q, W_k, W_v, and W_out with its bias, in blocks of 320 (5), 640 (5) and 1280 (6)."""
    return sum(n * (2 * d + d * d + 2 * width * d + d * d + d) for d, n in ((320, 5), (640, 5), (1280, 6)))


@pytest.mark.parametrize(("width", "millions", "exact"), [(768, 43.99, 43_987_520), (1280, 56.77, 56_767_040)])
def test_extra_parameters(
    sd15: StableDiffusionBackbone, make_method: Make, width: int, millions: float, exact: int
) -> None:
    module = make_method(tune="attention").build(sd15, (16, width))
    assert isinstance(module, TamingEncoderModule)
    assert count(module.attention) == count(module) == exact == closed_form(width)
    assert round(exact / 1e6, 2) == millions
    assert len(module.attention.layers) == 16
    assert not any(name.endswith(("to_q.bias", "to_k.bias", "to_v.bias")) for name, _ in module.named_parameters())


def test_the_whole_denoiser_trains(sd15: StableDiffusionBackbone, make_method: Make) -> None:
    module = make_method().build(sd15, (16, 768))
    assert isinstance(module, TamingEncoderModule)
    assert count(module.denoiser) == UNET
    assert {n.replace("/", ".") for n in module.denoiser} == set(sd15.denoiser_parameters())
    assert all(p.requires_grad for p in module.parameters())


def test_an_artifact_is_a_few_kilobytes() -> None:
    recipe = load("taming_encoder_sd15")
    assert recipe.method.levels * 1280 * 4 == 5120  # type: ignore[attr-defined]
    assert recipe.source.shares == {"faces": 0.3, "general": 0.7}  # type: ignore[attr-defined]
    assert recipe.stages["clip"].masked  # type: ignore[attr-defined]
    train = recipe.train
    assert (train.precision, train.gradient_checkpointing, train.shard_optimizer) == ("bf16", True, True)
