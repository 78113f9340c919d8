"""Stable Diffusion behind the backbone interface: what it computes, against diffusers' own whole pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.backbones import autoencoder as autoencoder_module
from e4t_core.backbones import load_backbone
from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from tests.backbones.conftest import RANDOM, images, normal

T = torch.tensor([20, 700])


def text(backbone: StableDiffusionBackbone, *prompts: str) -> Tensor:
    return backbone.encode_text(backbone.tokenize(prompts))


def recorded(backbone: StableDiffusionBackbone, x: Tensor, t: Tensor, states: Tensor) -> list[Tensor]:
    """Outputs of conv_in, of each down block's layers, and of the mid block in diffusers' whole forward pass."""
    seen: list[Tensor] = []
    unet = backbone.unet
    hooks = [unet.conv_in.register_forward_hook(lambda _m, _a, out: seen.append(out))]
    hooks += [b.register_forward_hook(lambda _m, _a, out: seen.extend(out[1])) for b in unet.down_blocks]
    hooks += [unet.mid_block.register_forward_hook(lambda _m, _a, out: seen.append(out))]
    with torch.no_grad():
        unet(x, t, encoder_hidden_states=states)
    for hook in hooks:
        hook.remove()
    return seen


def test_features_are_the_pooled_outputs_of_the_whole_pass_under_the_empty_prompt(
    backbone: StableDiffusionBackbone,
) -> None:
    x = normal(2, *backbone.latent_shape)
    outputs = recorded(backbone, x, T, text(backbone, "", ""))
    expected = torch.cat([o.mean(dim=(2, 3)) for o in outputs], dim=1)
    found = backbone.features(x, T)
    assert backbone.feature_dims == tuple(o.shape[1] for o in outputs)
    assert found.shape == (2, sum(backbone.feature_dims))
    torch.testing.assert_close(found, expected)


def test_features_do_not_run_the_up_blocks(backbone: StableDiffusionBackbone) -> None:
    ran: list[Any] = []
    hooks = [block.register_forward_hook(lambda m, _a, _o: ran.append(m)) for block in backbone.unet.up_blocks]
    backbone.features(normal(2, *backbone.latent_shape), T)
    for hook in hooks:
        hook.remove()
    assert not ran


def test_gradients_pass_through_features_only_when_asked(backbone: StableDiffusionBackbone) -> None:
    x = normal(2, *backbone.latent_shape).requires_grad_()
    assert not backbone.features(x, T).requires_grad
    backbone.features(x, T, grad=True).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.abs().sum() > 0)


def test_everything_is_frozen_and_in_eval_mode(backbone: StableDiffusionBackbone) -> None:
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not any(m.training for m in backbone.modules())


def test_denoise_is_the_unet_and_lets_gradients_reach_the_text(backbone: StableDiffusionBackbone) -> None:
    x, states = normal(2, *backbone.latent_shape), text(backbone, "a cat", "a dog").requires_grad_()
    out = backbone.denoise(x, T, states)
    with torch.no_grad():
        torch.testing.assert_close(out, backbone.unet(x, T, encoder_hidden_states=states).sample)
    out.square().sum().backward()
    assert states.grad is not None
    assert bool((states.grad.abs().sum(dim=(1, 2)) > 0).all())


def test_a_row_is_the_same_alone_and_in_company(backbone: StableDiffusionBackbone) -> None:
    x, states = normal(2, *backbone.latent_shape), text(backbone, "a cat", "a dog")
    for i in range(2):
        one = slice(i, i + 1)
        torch.testing.assert_close(backbone.denoise(x, T, states)[one], backbone.denoise(x[one], T[one], states[one]))
        torch.testing.assert_close(backbone.features(x, T)[one], backbone.features(x[one], T[one]))


def test_gradient_checkpointing_changes_no_gradient() -> None:
    backbone = load_backbone(RANDOM)
    x, states = normal(2, *backbone.latent_shape), torch.randn(2, backbone.max_tokens, backbone.text_width)

    def gradient() -> Tensor:
        leaf = states.clone().requires_grad_()
        backbone.denoise(x, T, leaf).square().sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    plain = gradient()
    backbone.enable_gradient_checkpointing()
    torch.testing.assert_close(gradient(), plain)


def test_a_half_precision_model_takes_and_gives_float32() -> None:
    backbone = load_backbone(RANDOM.model_copy(update={"dtype": "bfloat16"}))
    x, states = normal(2, *backbone.latent_shape), text(backbone, "a cat", "a dog")  # type: ignore[arg-type]
    assert {p.dtype for p in backbone.parameters()} == {torch.bfloat16}
    assert backbone.denoise(x, T, states).dtype == torch.float32
    assert backbone.features(x, T).dtype == torch.float32
    assert backbone.to_moments(images()).dtype == torch.float32
    full = load_backbone(RANDOM)
    torch.testing.assert_close(backbone.features(x, T), full.features(x, T), rtol=0.1, atol=0.05)


def test_latents_are_the_scaled_posterior(backbone: StableDiffusionBackbone) -> None:
    pixels = images()
    posterior = backbone.autoencoder.vae.encode(pixels).latent_dist
    moments = backbone.to_moments(pixels)
    scale = backbone.autoencoder.vae.config.scaling_factor
    torch.testing.assert_close(backbone.to_latent(moments), posterior.mean * scale)
    noise = normal(2, *backbone.latent_shape)
    torch.testing.assert_close(backbone.to_latent(moments, noise), (posterior.mean + posterior.std * noise) * scale)


def test_images_undo_the_latent_scale_and_stay_in_range(backbone: StableDiffusionBackbone) -> None:
    latents = normal(2, *backbone.latent_shape) * 30
    vae = backbone.autoencoder.vae
    decoded = vae.decode(latents / vae.config.scaling_factor).sample
    assert bool(decoded.abs().max() > 1)
    torch.testing.assert_close(backbone.to_image(latents), decoded.clamp(-1, 1))


def test_slices_bound_memory_and_change_nothing(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, latents = images(5), normal(5, *backbone.latent_shape)
    whole = backbone.to_moments(pixels), backbone.to_image(latents)
    sizes: list[int] = []
    hook = backbone.autoencoder.vae.encoder.register_forward_hook(lambda _m, args, _o: sizes.append(len(args[0])))
    monkeypatch.setattr(autoencoder_module, "_PIXELS_AT_ONCE", 2 * 32 * 32)
    torch.testing.assert_close((backbone.to_moments(pixels), backbone.to_image(latents)), whole)
    hook.remove()
    assert sizes == [2, 2, 1]


def test_the_schedule_is_the_schedulers(backbone: StableDiffusionBackbone) -> None:
    first, last = (backbone.scheduler_config[f"beta_{end}"] ** 0.5 for end in ("start", "end"))
    betas = torch.linspace(first, last, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(backbone.schedule.alphas_cumprod.double(), (1 - betas).cumprod(0), rtol=1e-4, atol=1e-6)
    assert backbone.schedule.prediction_type == backbone.scheduler_config["prediction_type"] == "v_prediction"
