"""What an adapter can become: the files of other programs where it has one path, and a reason where it has two."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

from e4t_core.adapters.dual_path import DualPathConfig
from e4t_core.adapters.export import export_low_rank
from e4t_core.adapters.low_rank import merged
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.bundled import bundled_folder
from e4t_core.errors import UsageError
from e4t_core.methods import Adapter
from e4t_core.record import Record
from e4t_core.sampling import SamplerConfig
from e4t_core.sampling.sampler import build_scheduler, initial_noise
from e4t_core.storage import Store
from tests.domain_agnostic.conftest import Make, draw, ready
from tests.e4t.conftest import identity_of, rng

ONE_PATH: dict[str, Any] = {"dual_path": DualPathConfig(per="none")}
RECORD = Record.of("adapter", {})


def loud(adapter: Adapter) -> Adapter:
    """A change large enough to see in a picture."""
    g = rng(9)
    tensors = {n: t + 0.2 * torch.randn(t.shape, generator=g) for n, t in adapter.tensors.items()}
    return replace(adapter, tensors=tensors)


def test_with_two_paths_it_is_no_lora_and_the_message_says_why(
    backbone: Backbone, make_method: Make, tmp_path: Path
) -> None:
    method, module = ready(make_method, backbone)
    adapter = method.personalize(module, backbone, [identity_of("ann", 1)])[0]
    message = r"'ann' draws with two paths \(method\.dual_path\.blend = 0\.25\): 75% of every attention"
    with pytest.raises(UsageError, match=message):
        method.low_rank_layers(adapter, backbone)
    with pytest.raises(UsageError, match=message):
        method.export(adapter, str(tmp_path), "textual_inversion", RECORD, backbone)
    untuned, _ = ready(make_method, backbone, hypernetwork=False, steps=0, **ONE_PATH)
    only = untuned.personalize(module, backbone, [identity_of("ann", 1)])[0]
    with pytest.raises(UsageError, match="has no LoRA: it is an embedding alone; export it as textual_inversion"):
        untuned.low_rank_layers(only, backbone)


@pytest.mark.parametrize("fields", [ONE_PATH, {"dual_path": DualPathConfig(blend=1.0)}])
def test_with_one_path_its_layers_and_embedding_are_all_of_it(
    backbone: Backbone, make_method: Make, fields: dict[str, Any]
) -> None:
    method, module = ready(make_method, backbone, alpha=4.0, **fields)
    adapter = loud(method.personalize(module, backbone, [identity_of("ann", 1)])[0])
    ours, layers = draw(method, module, backbone, adapter), method.low_rank_layers(adapter, backbone)
    x, t = torch.randn(1, *backbone.latent_shape, generator=rng(1)), torch.tensor([300])
    text = backbone.encode_text(
        backbone.tokenize([f"a photo of {backbone.placeholder}"]), adapter.tensors["token"][None]
    )
    conditioning = method.conditioning(module, backbone, adapter, identity_of("ann", 1), ["a photo of S*"])
    with conditioning.applied():
        conditioning.text(x, t, 0)
        said = conditioning.denoise(x, t, text)
    with merged(backbone.projections(("q", "k", "v")), layers):
        torch.testing.assert_close(backbone.denoise(x, t, text), said, rtol=1e-4, atol=1e-5)
    assert (ours - draw(method, module, backbone, replace(adapter, tensors={}))).abs().max() > 1e-2


def test_diffusers_draws_the_same_from_its_two_files(backbone: Backbone, make_method: Make, tmp_path: Path) -> None:
    method, module = ready(make_method, backbone, **ONE_PATH)
    adapter = loud(method.personalize(module, backbone, [identity_of("ann", 1)])[0])
    export_low_rank(method.low_rank_layers(adapter, backbone), "diffusers", Store(tmp_path), "ann", RECORD)
    method.export(adapter, str(tmp_path / "ann"), "textual_inversion", RECORD, backbone)
    assert isinstance(backbone, StableDiffusionBackbone)
    tokenizer = CLIPTokenizer.from_pretrained(bundled_folder("tiny") / "tokenizer", local_files_only=True)
    pipeline = StableDiffusionPipeline(
        vae=backbone.autoencoder.vae, text_encoder=copy.deepcopy(backbone.text_encoder), tokenizer=tokenizer,
        unet=copy.deepcopy(backbone.unet), scheduler=DDIMScheduler.from_config(backbone.scheduler_config),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tmp_path / "ann", weight_name="pytorch_lora_weights.safetensors")
    pipeline.load_textual_inversion(str(tmp_path / "ann" / "embedding.safetensors"), local_files_only=True)
    pipeline.scheduler = build_scheduler(backbone, SamplerConfig(steps=2, guidance=2.0, scheduler="ddim"))
    theirs = pipeline(
        f"a photo of {backbone.placeholder}", num_inference_steps=2, guidance_scale=2.0,
        latents=initial_noise(backbone.latent_shape, [4]), output_type="pt",
    ).images  # fmt: skip
    ours = (draw(method, module, backbone, adapter) + 1) / 2
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)
