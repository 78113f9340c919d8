"""E4T's objective and the switches of its ablations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.config import validate
from e4t_core.errors import CheckpointMismatch, UsageError
from e4t_core.methods import Method
from e4t_core.methods.e4t import E4TConfig
from e4t_core.methods.e4t.objective import objective, predict_offset
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training import load_module, save_module
from tests.e4t.conftest import CLIP_DIMS, RESOLUTION, batch_of, identity_of, rng
from tests.e4t.e4t_parts import draw, noisy, pretrained, short

Make = Callable[..., Method]
KINDS = ("regularized", "direct", "none", "hypernetwork")


@pytest.mark.parametrize("kind", KINDS)
def test_step_0_is_the_backbone_with_the_domain_word(kind: str, backbone: Backbone, make_method: Make) -> None:
    method = make_method(offsets=kind)
    module, batch = method.build(backbone, CLIP_DIMS), noisy(backbone)
    with torch.no_grad(), method.pretraining(module, backbone):
        ours = objective(method.config, module, backbone, batch, 0.01)
    x_t = backbone.schedule.add_noise(batch.x0, batch.eps, batch.t)
    word = backbone.token_embedding("face").expand(4, -1)
    with torch.no_grad():
        prediction = backbone.denoise(x_t, batch.t, backbone.encode_text(batch.ids, word))
    target = backbone.schedule.target(batch.x0, batch.eps, batch.t)
    torch.testing.assert_close(ours.terms["diffusion"], (prediction - target).square().mean())
    assert ours.terms["regularization"] == 0


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_batch_is_the_mean_of_batches_of_one(kind: str, masked: bool, backbone: Backbone, make_method: Make) -> None:
    method = make_method(offsets=kind)
    module, batch = pretrained(method, backbone), noisy(backbone, 3, masked)
    with torch.no_grad(), method.pretraining(module, backbone):
        whole = objective(method.config, module, backbone, batch, 0.01)
        alone = [objective(method.config, module, backbone, one, 0.01) for one in batch.split(1)]
    torch.testing.assert_close(whole.total, torch.stack([o.total for o in alone]).mean(), rtol=1e-5, atol=1e-6)


def test_total_is_eq_5_and_the_ablation_drops_its_second_term(backbone: Backbone, make_method: Make) -> None:
    method = make_method()
    module, batch = pretrained(method, backbone), noisy(backbone)
    with torch.no_grad():
        full = objective(method.config, module, backbone, batch, 0.5)
        x_t = backbone.schedule.add_noise(batch.x0, batch.eps, batch.t)
        E = predict_offset(method.config, module, backbone, batch.cls, x_t, batch.t)
        ablated = objective(make_method(embedding_regularization=False).config, module, backbone, batch, 0.5)
    torch.testing.assert_close(full.terms["regularization"], E.square().sum(1).mean())
    torch.testing.assert_close(full.total, full.terms["diffusion"] + 0.5 * full.terms["regularization"])
    torch.testing.assert_close(ablated.total, full.terms["diffusion"])


def test_the_denoiser_sees_the_predicted_embedding(backbone: Backbone, make_method: Make) -> None:
    method = make_method(offsets="none")
    module, batch = pretrained(method, backbone), noisy(backbone)
    with torch.no_grad():
        ours = objective(method.config, module, backbone, batch, 0.01)
        x_t = backbone.schedule.add_noise(batch.x0, batch.eps, batch.t)
        E = module.encoder(batch.cls, backbone.features(x_t, batch.t))
        e_c = backbone.token_embedding("face") + 0.1 * E
        prediction = backbone.denoise(x_t, batch.t, backbone.encode_text(batch.ids, e_c))
    target = backbone.schedule.target(batch.x0, batch.eps, batch.t)
    torch.testing.assert_close(ours.terms["diffusion"], (prediction - target).square().mean())
    assert E.norm() > 0


def test_embedding_is_eq_1(backbone: Backbone, make_method: Make) -> None:
    module = make_method(scale=0.25).build(backbone, CLIP_DIMS)
    E = torch.randn(2, backbone.text_width, generator=rng())
    torch.testing.assert_close(module.concept(E), backbone.token_embedding("face") + 0.25 * E)


@pytest.mark.parametrize("grad", [False, True])
def test_gradients_through_the_features_pass_are_an_option(grad: bool, backbone: Backbone, make_method: Make) -> None:
    method = make_method(feature_grad=grad)
    module, batch = pretrained(method, backbone), noisy(backbone, 2)
    with method.pretraining(module, backbone):
        E = predict_offset(method.config, module, backbone, batch.cls, batch.x0, batch.t)
        E.sum().backward()
    assert any(p.grad is not None for p in module.offsets.parameters()) == grad
    assert all(p.grad is not None for p in module.encoder.parameters())


def test_bf16_gradients_are_those_of_fp32(backbone: Backbone, make_method: Make) -> None:
    """Weights are first cast in the features pass, which has no gradients; autocast's cache must not keep that."""
    method = make_method()
    module, batch, grads = pretrained(method, backbone), batch_of(backbone, 2), []
    for enabled in (False, True):
        module.zero_grad()
        with method.pretraining(module, backbone), method.step(module):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = method.pretrain_loss(module, backbone, batch, rng()).total
            loss.backward()
        grads.append({n: p.grad.flatten().clone() for n, p in module.named_parameters()})
    for name, exact in grads[0].items():
        if "columns.weight" in name or "final.weight" in name:
            assert torch.cosine_similarity(exact, grads[1][name], dim=0) > 0.9, name


def test_without_refinement_the_unet_is_not_asked(
    backbone: Backbone, make_method: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make_method(iterative_refinement=False, personalize=short(steps=1))
    module, identity = pretrained(method, backbone), identity_of("ann", 1)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("features were asked for")

    monkeypatch.setattr(type(backbone), "features", refuse)
    adapter = method.personalize(module, backbone, [identity])[0]
    draw(method, module, backbone, adapter, identity)


def test_prompts_come_from_the_samples_or_the_recipe(backbone: Backbone, make_method: Make) -> None:
    batch = batch_of(backbone, 2)
    losses = {}
    for prompts in ("caption", "templates"):
        method = make_method(prompts=prompts)
        module = method.build(backbone, CLIP_DIMS)
        losses[prompts] = method.pretrain_loss(module, backbone, batch, rng()).total.item()
    assert losses["caption"] != losses["templates"]
    del batch["templates"]
    method.pretrain_loss(module, backbone, batch, rng())
    with pytest.raises(KeyError, match="templates"):
        make_method(prompts="caption").pretrain_loss(module, backbone, batch, rng())


def test_mask_in_pretraining_is_an_option_that_asks_for_its_column(backbone: Backbone, make_method: Make) -> None:
    plain, masked = make_method(), make_method(mask=True)
    assert set(masked.columns) - set(plain.columns) == {"mask"}
    module, batch = plain.build(backbone, CLIP_DIMS), batch_of(backbone, 2)
    one, two = (m.pretrain_loss(module, backbone, batch, rng()).total for m in (plain, masked))
    assert one != two


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "a {photo}"])
def test_templates_have_one_place_for_the_concept(template: str) -> None:
    with pytest.raises(UsageError, match=r"method\.templates\.0"):
        validate(E4TConfig, {"name": "e4t", "domain_word": "face", "templates": [template]}, "method")


def test_checkpoint_of_another_ablation_is_refused(backbone: Backbone, make_method: Make, tmp_path: Path) -> None:
    store, record = Store(tmp_path), Record.of("module", {})
    save_module(store, "m.safetensors", make_method().build(backbone, CLIP_DIMS), record)
    for fields, message in (
        ({"offsets": "direct"}, "method.offsets is regularized there and direct here"),
        ({"scale": 0.2}, "method.scale is 0.1 there and 0.2 here"),
        ({"unet_join": "own_levels"}, "method.unet_join is per_level there and own_levels here"),
    ):
        with pytest.raises(CheckpointMismatch, match=message):
            load_module(store, "m.safetensors", make_method(**fields).build(backbone, CLIP_DIMS))
    other = load_backbone(BackboneConfig(path="bundled:tiny", random_seed=1, resolution=RESOLUTION))
    with pytest.raises(CheckpointMismatch, match=r"backbone\.unet is \w+ there and \w+ here"):
        load_module(store, "m.safetensors", make_method().build(other, CLIP_DIMS))
