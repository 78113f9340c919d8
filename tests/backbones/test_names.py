"""Stable names of adaptable layers and parameters, with and without something wrapped around them."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from e4t_core.backbones import load_backbone
from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from tests.backbones.conftest import RANDOM, normal

EVERY = ("q", "k", "v", "out", "geglu", "ff_out")
BOTH = ("unet", "text_encoder")


class Scale(nn.Module):
    """A parametrization with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(2.0))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.by


def test_every_transformer_block_gives_ten_layers(backbone: StableDiffusionBackbone) -> None:
    found = backbone.projections(EVERY)
    blocks = [n for n, m in backbone.unet.named_modules() if type(m).__name__ == "BasicTransformerBlock"]
    assert len(found) == 10 * len(blocks)
    per_block = Counter((p.role, p.attention) for p in found.values())
    expected = {(role, kind) for role in ("q", "k", "v", "out") for kind in ("self", "cross")}
    expected |= {("geglu", "none"), ("ff_out", "none")}
    assert per_block == Counter(dict.fromkeys(expected, len(blocks)))


def test_names_are_paths_and_say_where_a_layer_is(backbone: StableDiffusionBackbone) -> None:
    for name, projection in backbone.projections(EVERY).items():
        assert projection.name == name
        assert backbone.get_submodule(name) is projection.module
        assert name.split(".")[1].startswith(projection.location)
    cross = [p for p in backbone.projections(("k",)).values() if p.attention == "cross"]
    assert {p.module.in_features for p in cross} == {backbone.text_width}
    assert all("attn2" in p.name for p in cross)


def test_only_what_is_asked_for_is_given(backbone: StableDiffusionBackbone) -> None:
    assert {p.role for p in backbone.projections().values()} == {"q", "k", "v"}
    assert {p.network for p in backbone.projections().values()} == {"unet"}
    text = backbone.projections(("q", "k", "v", "out"), ("text_encoder",))
    assert len(text) == 4 * backbone.text_encoder.config.num_hidden_layers
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj" in text
    assert {p.location for p in text.values()} == {"text"}
    assert len(backbone.projections(EVERY, BOTH)) == len(backbone.projections(EVERY)) + len(text)


def test_parameters_keep_their_names_under_a_parametrization() -> None:
    backbone = load_backbone(RANDOM)
    assert isinstance(backbone, StableDiffusionBackbone)
    names, layers = backbone.denoiser_parameters(), list(backbone.projections(EVERY, BOTH))
    assert list(names) == [name for name, _ in backbone.unet.named_parameters()]
    for projection in backbone.projections().values():
        parametrize.register_parametrization(projection.module, "weight", Scale())
    wrapped = backbone.denoiser_parameters()
    assert set(wrapped) == set(names)
    assert all(wrapped[name] is names[name] for name in names)
    assert list(backbone.projections(EVERY, BOTH)) == layers


def test_a_parametrization_reaches_the_prediction() -> None:
    backbone = load_backbone(RANDOM)
    x, t = normal(1, *backbone.latent_shape), torch.tensor([500])
    text = backbone.encode_text(backbone.tokenize(["a cat"]))
    before = backbone.denoise(x, t, text)
    for projection in backbone.projections(("v",)).values():
        parametrize.register_parametrization(projection.module, "weight", Scale())
    assert not torch.allclose(backbone.denoise(x, t, text), before)
    for projection in backbone.projections(("v",)).values():
        parametrize.remove_parametrizations(projection.module, "weight", leave_parametrized=False)
    assert torch.equal(backbone.denoise(x, t, text), before)
