"""The encoder of E4T section 3.1, against its description."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from e4t_core.models import E4TEncoder
from tests.e4t.conftest import rng

L, D, DIMS, OUT, WIDTH = 3, 5, (2, 4), 7, 6


def encoder(**fields: Any) -> E4TEncoder:
    settings = {"width": WIDTH, "unet_join": "per_level", "zero_final": False, "rng": rng()} | fields
    return E4TEncoder((L, D), settings.pop("dims", DIMS), OUT, **settings)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, L, D, generator=rng(1)), torch.randn(2, sum(DIMS), generator=rng(2))


def test_per_level_joins_all_unet_features_to_every_level() -> None:
    net, (cls, features) = encoder(), inputs()
    levels = [net.levels[i](torch.cat([cls[:, i], features], dim=1)) for i in range(L)]
    expected = net.final(F.leaky_relu(sum(levels) / L))
    torch.testing.assert_close(net(cls, features), expected)


def test_own_levels_averages_over_clip_and_unet_levels() -> None:
    net, (cls, features) = encoder(unet_join="own_levels"), inputs()
    levels = [net.levels[i](cls[:, i]) for i in range(L)]
    levels += [net.levels[L](features[:, :2]), net.levels[L + 1](features[:, 2:])]
    torch.testing.assert_close(net(cls, features), net.final(F.leaky_relu(sum(levels) / (L + 2))))


@pytest.mark.parametrize("join", ["per_level", "own_levels"])
def test_every_input_matters(join: str) -> None:
    net, (cls, features) = encoder(unet_join=join), inputs()
    cls.requires_grad_()
    features.requires_grad_()
    net(cls, features).square().sum().backward()
    assert (cls.grad.abs().sum(dim=(0, 2)) > 0).all()
    assert (features.grad.abs().sum(dim=0) > 0).all()


def test_without_refinement_only_the_image_counts() -> None:
    net, (cls, features) = encoder(dims=()), inputs()
    assert net(cls).shape == (2, OUT)
    with pytest.raises(RuntimeError):
        net(cls, features)


def test_zero_final_starts_at_zero_and_learns() -> None:
    net, (cls, features) = encoder(zero_final=True), inputs()
    out = net(cls, features)
    assert not out.any()
    (out * torch.randn(2, OUT, generator=rng(3))).sum().backward()
    assert net.final.weight.grad.any()


def test_half_precision_features_are_taken() -> None:
    cls, features = inputs()
    assert encoder()(cls.half(), features.bfloat16()).dtype == torch.float32
