"""The sampler, checked against what must hold for any model and against a denoiser that knows the answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from e4t_core.backbones.base import Backbone, NoiseSchedule
from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.sampling import SamplerConfig, TextConditioning, sample
from e4t_core.sampling.sampler import initial_noise
from tests.backbones.conftest import normal

SCHEDULERS = ("ddim", "dpmsolver++")
PROMPTS = ["a photo of a cat", "a pencil sketch of a dog"]
QUICK = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def config(**fields: Any) -> SamplerConfig:
    return SamplerConfig(**{"steps": 4, "guidance": 3.0, "scheduler": "ddim", **fields})


def draw(backbone: Backbone, prompts: Sequence[str], cfg: SamplerConfig, seeds: Sequence[int]) -> Tensor:
    return sample(backbone, TextConditioning(backbone, prompts), cfg, seeds)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@QUICK
@given(seeds=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=2), guidance=st.sampled_from([1.0, 3.0]))
def test_an_image_depends_on_its_own_seed_and_prompt_alone(
    backbone: StableDiffusionBackbone, scheduler: str, seeds: list[int], guidance: float
) -> None:
    cfg = config(scheduler=scheduler, guidance=guidance)
    before = torch.get_rng_state()
    together = draw(backbone, PROMPTS, cfg, seeds)
    assert torch.equal(torch.get_rng_state(), before)
    alone = torch.cat([draw(backbone, [p], cfg, [s]) for p, s in zip(PROMPTS, seeds, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert torch.equal(draw(backbone, PROMPTS, cfg, seeds), together)


def test_images_have_the_models_size_and_range(backbone: StableDiffusionBackbone) -> None:
    images = draw(backbone, PROMPTS, config(), [0, 1])
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == torch.float32
    assert float(images.abs().max()) <= 1


def test_seeds_and_prompts_matter(backbone: StableDiffusionBackbone) -> None:
    one, two = draw(backbone, [PROMPTS[0]] * 2, config(), [0, 1])
    other = draw(backbone, [PROMPTS[1]], config(), [0])[0]
    assert not torch.allclose(one, two, atol=1e-3)
    assert not torch.allclose(one, other, atol=1e-5)


def test_noise_is_standard_and_its_seeds_own() -> None:
    noise = initial_noise((4, 64, 64), [7, 8, 7])
    assert torch.equal(noise[0], noise[2])
    assert abs(float(noise[:2].mean())) < 0.02
    assert abs(float(noise[:2].std()) - 1) < 0.02
    assert abs(float(torch.corrcoef(noise[:2].flatten(1))[0, 1])) < 0.03


def test_guidance_one_is_the_unguided_model_and_runs_no_second_branch(backbone: StableDiffusionBackbone) -> None:
    sizes = []
    hook = backbone.unet.register_forward_hook(lambda _m, args, _o: sizes.append(len(args[0])))
    unguided = draw(backbone, PROMPTS, config(guidance=1.0, negative_prompt="a dog"), [0, 1])
    nearly = draw(backbone, PROMPTS, config(guidance=1.0 + 1e-6, negative_prompt="a dog"), [0, 1])
    hook.remove()
    assert sizes == [2] * 4 + [4] * 4
    torch.testing.assert_close(unguided, nearly, rtol=1e-4, atol=1e-4)


def test_guidance_zero_is_the_negative_prompt(backbone: StableDiffusionBackbone) -> None:
    led = draw(backbone, [PROMPTS[0]], config(guidance=0.0, negative_prompt=PROMPTS[1]), [0])
    plain = draw(backbone, [PROMPTS[1]], config(guidance=1.0), [0])
    torch.testing.assert_close(led, plain, rtol=1e-4, atol=1e-4)


def test_the_negative_prompt_is_encoded_once(backbone: StableDiffusionBackbone) -> None:
    conditioning = TextConditioning(backbone, PROMPTS)
    calls: list[Any] = []
    hook = backbone.text_encoder.register_forward_hook(lambda _m, args, _o: calls.append(args))
    sample(backbone, conditioning, config(negative_prompt="blurry"), [0, 1])
    hook.remove()
    assert len(calls) == 1


class Recorder(TextConditioning):
    """Notes how the sampler drives a conditioning."""

    def __init__(self, backbone: Backbone, prompts: Sequence[str]) -> None:
        super().__init__(backbone, prompts)
        self.on, self.calls = False, []

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        self.on = True
        yield
        self.on = False

    def text(self, x_t_BChw: Tensor, t_B: Tensor, step: int) -> Tensor:
        assert self.on
        assert not torch.is_grad_enabled()
        self.calls.append((step, t_B.tolist(), x_t_BChw.shape))
        return super().text(x_t_BChw, t_B, step)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_conditioning_is_asked_at_every_step(backbone: StableDiffusionBackbone, scheduler: str) -> None:
    recorder, done = Recorder(backbone, PROMPTS), []
    sample(backbone, recorder, config(scheduler=scheduler), [0, 1], on_step=done.append)
    steps, times, shapes = zip(*recorder.calls, strict=True)
    assert steps == (0, 1, 2, 3)
    assert done == [1, 2, 3, 4]
    assert all(len(set(t)) == 1 and len(t) == 2 for t in times)
    assert [t[0] for t in times] == sorted((t[0] for t in times), reverse=True)
    assert set(shapes) == {(2, *backbone.latent_shape)}
    assert not recorder.on


class Oracle(TextConditioning):
    """A denoiser that knows the clean latents, in either parametrization."""

    def __init__(self, backbone: Backbone, x0_BChw: Tensor, kind: Literal["epsilon", "v_prediction"]) -> None:
        super().__init__(backbone, PROMPTS)
        self.x0, self.schedule = x0_BChw, NoiseSchedule(backbone.schedule.alphas_cumprod, kind)

    def denoise(self, x_t_BChw: Tensor, t_B: Tensor, text_BTD: Tensor) -> Tensor:
        clean = self.schedule.add_noise(self.x0, torch.zeros_like(self.x0), t_B)
        eps = (x_t_BChw - clean) / (1 - self.schedule.alphas_cumprod[t_B]).sqrt().view(-1, 1, 1, 1)
        return self.schedule.target(self.x0, eps, t_B)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_a_perfect_denoiser_ends_at_the_clean_latents(
    backbone: StableDiffusionBackbone, scheduler: str, kind: Literal["epsilon", "v_prediction"], steps: int
) -> None:
    x0 = normal(2, *backbone.latent_shape, seed=5)
    view: Any = SimpleNamespace(
        # set_alpha_to_one: DDIM's last step goes to no noise at all, not to the first training level
        scheduler_config={**backbone.scheduler_config, "prediction_type": kind, "set_alpha_to_one": True},
        latent_shape=backbone.latent_shape,
        device=backbone.device,
        to_image=lambda latents: latents,
    )
    found = sample(view, Oracle(backbone, x0, kind), config(steps=steps, scheduler=scheduler, guidance=1.0), [0, 1])
    torch.testing.assert_close(found, x0, rtol=0, atol=1e-3)
