"""The encoder: sizes of the paper, what it starts from, and what it looks at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.errors import DataError
from e4t_core.methods.domain_agnostic import DomainAgnostic, DomainAgnosticConfig, DomainAgnosticModule
from e4t_core.models import DomainAgnosticEncoder
from tests.e4t.conftest import assert_same, rng, snapshot

VIT_H = (16, 1280)
LAYERS = {"a.up": (6, 2), "a.down": (2, 5), "b.up": (3, 2), "b.down": (2, 4)}


def encoder(seed: int = 0, layers: Any = LAYERS) -> DomainAgnosticEncoder:
    return DomainAgnosticEncoder(10, 7, 12, layers, width=16, blocks=2, hyper_width=8, rng=rng(seed))


def inputs(batch: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 16, 10, generator=rng(1)), torch.randn(batch, 7, 2, 2, generator=rng(2))


def trained(seed: int = 0) -> DomainAgnosticEncoder:
    found, g = encoder(seed), rng(4)
    with torch.no_grad():
        for p in found.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.2)
    return found


@pytest.fixture(scope="module")
def sd15() -> StableDiffusionBackbone:
    return StableDiffusionBackbone.from_config("sd15")


def at_sd15(sd15: StableDiffusionBackbone, **fields: Any) -> DomainAgnosticModule:
    config = DomainAgnosticConfig(name="domain_agnostic", domain_word="object", templates=("{}",), **fields)
    module = DomainAgnostic(config).build(sd15, VIT_H)
    assert isinstance(module, DomainAgnosticModule)
    return module


@pytest.mark.parametrize("rank", [1, 4])
def test_at_stable_diffusions_size_it_gives_149_376_numbers_per_rank_for_96_matrices(
    sd15: StableDiffusionBackbone, rank: int
) -> None:
    module = at_sd15(sd15, rank=rank)
    assert len(module.weights.lora.projections) == 96
    sizes = [p.module.weight.numel() for p in module.weights.lora.projections.values()]
    assert sum(sizes) / 96 == pytest.approx(715_946.67, abs=0.01)
    x_t, t = torch.empty(2, 4, 64, 64, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
    assert sd15.mid_features(x_t, t).shape == (2, 1280, 8, 8)
    token, lora = module.predict(sd15, torch.empty(2, 256, 1280, device="meta"), x_t, t)
    assert (token.shape, lora.shape) == ((2, 768), (2, 149_376 * rank))
    hyper = module.encoder.hypernetwork
    assert hyper is not None
    outputs = sum(layer.out_features for layer in (hyper.up, hyper.down))
    assert outputs == 149_376 * rank
    inner = hyper.inner.out_features
    head = 512 * inner + inner + (inner + 1) * outputs
    assert sum(p.numel() for p in hyper.parameters()) == head


def test_it_starts_with_no_offset_and_with_loras_own_start() -> None:
    with torch.no_grad():
        token, lora = encoder()(*inputs())
    assert not token.any()
    assert lora is not None
    start = dict(zip(LAYERS, lora.split([12, 10, 6, 8], dim=1), strict=True))
    for name, part in start.items():
        if name.endswith(".up"):
            assert not part.any()
        else:
            width = LAYERS[name][1]
            assert float(part.std()) * width**0.5 == pytest.approx(1 / 3**0.5, abs=0.3)
            assert not torch.equal(part[0], part[1])


def test_what_the_image_adds_goes_to_each_layers_own_place() -> None:
    """The flat form is LoRA's: up and down of each layer in turn, though two heads predict them."""
    found = trained()
    hyper = found.hypernetwork
    assert hyper is not None
    h = torch.nn.functional.leaky_relu(hyper.inner(torch.ones(1, 16)))
    up_a, up_b = hyper.up(h).split([12, 6], dim=1)
    down_a, down_b = hyper.down(h).split([10, 8], dim=1)
    torch.testing.assert_close(
        hyper(torch.ones(1, 16)), torch.cat([up_a, down_a / 5**0.5, up_b, down_b / 4**0.5], dim=1)
    )


def test_initial_values_come_from_its_own_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = encoder()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert_same(snapshot(one), snapshot(encoder()))
    assert not torch.equal(one.trunk.clip.weight, encoder(seed=1).trunk.clip.weight)


def test_both_features_and_their_places_decide_and_their_scales_do_not() -> None:
    found = trained()
    tokens, mid = inputs()

    def said(tokens: Tensor, mid: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([part for part in found(tokens, mid) if part is not None], dim=1)

    one = said(tokens, mid)
    torch.testing.assert_close(said(10 * tokens, 0.1 * mid), one, rtol=1e-3, atol=1e-4)
    turned = tokens.unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)
    for other in (said(tokens.flip(2), mid), said(tokens, mid.flip(1)), said(tokens, mid.flip(3)), said(turned, mid)):
        assert (other - one).abs().max() > 1e-3
    torch.testing.assert_close(said(tokens[1:], mid[1:]), one[1:], rtol=1e-4, atol=1e-5)  # images do not meet


def test_without_a_hypernetwork_it_predicts_an_embedding_alone() -> None:
    token, lora = encoder(layers={})(*inputs())
    assert (token.shape, lora) == ((2, 12), None)


def test_patches_that_are_no_square_are_refused() -> None:
    with pytest.raises(DataError, match="5 patch tokens an image do not make a square grid"):
        encoder()(torch.zeros(1, 5, 10), torch.zeros(1, 7, 2, 2))
