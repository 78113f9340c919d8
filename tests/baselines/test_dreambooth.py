"""DreamBooth: which weights move, prior preservation term by term, and a backbone that is given back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from e4t_core.backbones.base import Backbone
from e4t_core.losses import draw_noise
from e4t_core.methods._prior import ClassImages
from e4t_core.methods.dreambooth import personalization
from e4t_core.methods.dreambooth.objective import NoisyBatch, objective
from e4t_core.sampling import TextConditioning, sample
from tests.baselines.conftest import Make, draw, learned
from tests.e4t.conftest import assert_same, identity_of, rng, snapshot
from tests.methods.conftest import FEW


def noisy(backbone: Backbone, prompt: str, seed: int) -> NoisyBatch:
    channels, h, w = backbone.latent_shape
    moments = torch.randn(3, 2 * channels, h, w, generator=rng(seed))
    with torch.no_grad():
        text = backbone.encode_text(backbone.tokenize([prompt]))
    return NoisyBatch(*draw_noise(backbone, moments, rng(seed)), text=text)


def test_the_objective_is_equation_2(backbone: Backbone) -> None:
    """By hand: squared errors of the noise, averaged; lambda times the class's."""
    own, others = noisy(backbone, "a sks face", 1), noisy(backbone, "a face", 2)
    losses = objective(backbone, own, others, weight=0.25)
    expected = {}
    for name, batch in (("diffusion", own), ("prior", others)):
        abar = backbone.schedule.alphas_cumprod[batch.t].view(-1, 1, 1, 1)
        x_t = abar.sqrt() * batch.x0 + (1 - abar).sqrt() * batch.eps
        said = backbone.denoise(x_t, batch.t, batch.text.expand(3, -1, -1))
        truth = batch.eps
        if backbone.schedule.prediction_type == "v_prediction":
            truth = abar.sqrt() * batch.eps - (1 - abar).sqrt() * batch.x0
        expected[name] = (said - truth).square().mean()
        torch.testing.assert_close(losses.terms[name], expected[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses.total, expected["diffusion"] + 0.25 * expected["prior"], rtol=1e-5, atol=1e-6)
    assert objective(backbone, own, None).terms.keys() == {"diffusion"}


def test_the_class_is_what_the_untouched_model_draws(backbone: Backbone) -> None:
    """Each image from its own seed, in whatever batches; drawn once, and none without a prior."""
    images = ClassImages(FEW)
    prior = images(backbone)
    assert prior is not None
    assert (len(prior.moments_M2Chw), prior.weight) == (3, 1.0)
    drawn = sample(backbone, TextConditioning(backbone, ["a face"] * 3), FEW.sampler, seeds=[0, 1, 2])
    torch.testing.assert_close(prior.moments_M2Chw, backbone.to_moments(drawn), rtol=1e-3, atol=1e-3)
    assert images(backbone) is prior
    assert images.facts()["prior"]["images"] == 3  # type: ignore[index]
    assert ClassImages(None)(backbone) is None


@pytest.mark.parametrize("text_encoder", [False, True])
def test_only_what_is_meant_moves(backbone: Backbone, make_method: Make, text_encoder: bool) -> None:
    method = make_method("dreambooth", {"text_encoder": text_encoder, "lr": 1e-4})
    before = snapshot(backbone)
    (adapter,) = learned(method, backbone, identity_of("ann", 1))
    moved = {name.partition(".")[0] for name in adapter.tensors}
    assert moved == ({"denoiser", "text"} if text_encoder else {"denoiser"})
    whole = {f"denoiser.{name}" for name in backbone.denoiser_parameters()}
    assert len(whole & adapter.tensors.keys()) > 0.9 * len(whole), "the whole denoiser is tuned"
    assert_same(before, snapshot(backbone))
    assert draw(method, backbone, adapter, identity_of("ann", 1)).isfinite().all()
    assert_same(before, snapshot(backbone))


def test_the_prior_and_the_whole_set_change_what_is_learned(backbone: Backbone, make_method: Make) -> None:
    many = identity_of("ann", 1, images=3)
    adapters = [
        learned(make_method("dreambooth", {"lr": 1e-4}, **fields), backbone, one)[0]
        for fields, one in (({}, many), ({"prior": None}, many), ({}, identity_of("ann", 1)))
    ]
    weights = [adapter.tensors["denoiser.conv_in.weight"] for adapter in adapters]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert [adapter.meta["images"] for adapter in adapters] == [3, 3, 1]
    assert ["prior" in adapter.meta for adapter in adapters] == [True, False, True]


def test_tuning_learns_the_image(backbone: Backbone, make_method: Make) -> None:
    """The mean of the last steps' losses, over noise of every level, is below that of the first."""
    method = make_method("dreambooth", {"steps": 12, "lr": 3e-4}, prior=None)
    (adapter,) = learned(method, backbone, identity_of("ann", 1))
    losses = adapter.meta["losses"]
    assert sum(losses[-4:]) < sum(losses[:4])


def test_who_diverges_is_told_and_harms_nobody(backbone: Backbone, make_method: Make) -> None:
    method = make_method("dreambooth", {"steps": 30}, prior=None)
    ann, bob = identity_of("ann", 1), identity_of("bob", 2)
    spoilt = replace(bob, images_N3HW=torch.full_like(bob.images_N3HW, math.nan))
    short = make_method("dreambooth", prior=None)
    bad = learned(method, backbone, spoilt)[0]
    assert "the loss is nan at step 0 of 30; lower method.personalize.lr (1e-06)" in bad.meta["failed"]
    assert bad.meta["steps"] == 1, "nothing is gained by going on"
    good = learned(short, backbone, spoilt, ann)[1]
    assert_same(good.tensors, learned(short, backbone, ann)[0].tensors)
    assert "failed" not in good.meta


def test_it_stops_when_its_time_is_spent(
    backbone: Backbone, make_method: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes on by a second whenever it is read: once before, once a step."""
    seconds = iter(range(100))
    monkeypatch.setattr(personalization, "now", lambda device: next(seconds))
    method = make_method("dreambooth", {"steps": 9, "seconds": 3.0}, prior=None)
    (adapter,) = learned(method, backbone, identity_of("ann", 1))
    assert (adapter.meta["steps"], len(adapter.meta["losses"])) == (3, 3)
