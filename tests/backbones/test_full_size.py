"""Facts of the full-size models, on ``meta``: the published sizes, and the counts the papers give."""

from __future__ import annotations

import open_clip
import pytest
import torch
from torch import nn

from e4t_core.backbones import ClipModel
from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone


@pytest.fixture(scope="module")
def sd15() -> StableDiffusionBackbone:
    return StableDiffusionBackbone.from_config("sd15")


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes_are_the_published_ones(sd15: StableDiffusionBackbone) -> None:
    assert size(sd15.unet) == 859_520_964
    assert size(sd15.text_encoder) == 123_060_480
    assert size(sd15.autoencoder) == 83_653_863
    assert sd15.latent_shape == (4, 64, 64)
    assert (sd15.max_tokens, sd15.text_width) == (77, 768)
    assert {p.device.type for p in sd15.parameters()} == {sd15.device.type} == {"meta"}


def test_e4t_sees_thirteen_features_of_10880_numbers(sd15: StableDiffusionBackbone) -> None:
    assert len(sd15.feature_dims) == 13
    assert sum(sd15.feature_dims) == 10_880
    x, t = torch.empty(2, 4, 64, 64, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
    assert sd15.features(x, t).shape == (2, 10_880)


def test_the_96_query_key_value_matrices(sd15: StableDiffusionBackbone) -> None:
    sizes = [p.module.weight.numel() for p in sd15.projections(("q", "k", "v")).values()]
    assert len(sizes) == 96
    assert sum(sizes) / 96 == pytest.approx(715_946.67, abs=0.01)


def test_hyperdreambooths_192_layers(sd15: StableDiffusionBackbone) -> None:
    unet = sd15.projections(("q", "k", "v", "out", "geglu"))
    text = sd15.projections(("q", "k", "v", "out"), ("text_encoder",))
    assert len(unet) + len(text) == 192
    assert sum(sum(p.module.weight.shape) for p in (*unet.values(), *text.values())) == 385_344


def test_without_its_vocabulary_the_tokenizer_is_clips_own(sd15: StableDiffusionBackbone) -> None:
    published = open_clip.get_tokenizer("ViT-H-14")
    for prompt in ("a photo of a cat", "Ukiyo-e painting, isn't it? 1234", "café at night", "x" * 50):
        assert sd15.tokenizer(prompt, add_special_tokens=False)["input_ids"] == published.encode(prompt)
    ids = sd15.tokenizer("")["input_ids"]
    assert ids == [published.sot_token_id, published.eot_token_id] == [49406, 49407]
    assert sd15.placeholder_id == 49408


@pytest.mark.parametrize("path", ["bundled:clip_vit_h_14", "ViT-H-14"])
def test_vit_h_14_has_16_levels_and_256_patches(path: str) -> None:
    clip = ClipModel.from_config(path)
    assert size(clip) == 986_109_441
    assert clip.dims == (16, 1280)
    assert clip.levels == list(range(1, 32, 2))
    cls, tokens = clip.image_features(torch.empty(2, 3, 512, 512, device="meta"), tokens=True)
    assert tokens is not None
    assert (cls.shape, tokens.shape) == ((2, 16, 1280), (2, 256, 1280))
