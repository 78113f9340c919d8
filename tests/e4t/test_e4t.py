"""E4T itself: the objective, its ablations, tuning on one image, and generation step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.config import validate
from e4t_core.errors import CheckpointMismatch, DataError, UsageError, UserError
from e4t_core.methods import Adapter, Identity, Method
from e4t_core.methods.e4t import E4TConfig, E4TModule, PersonalizeConfig, personalization
from e4t_core.methods.e4t.adapter import applied
from e4t_core.methods.e4t.objective import NoisyBatch, draw_noise, objective, predict_offset, with_placeholder
from e4t_core.record import Record
from e4t_core.sampling import SamplerConfig, sample
from e4t_core.storage import Store
from e4t_core.training import load_module, save_module
from tests.e4t.conftest import CLIP_DIMS, RESOLUTION, assert_same, batch_of, identity_of, rng, snapshot

Make = Callable[..., Method]
KINDS = ("regularized", "direct", "none", "hypernetwork")
QKV = ("q", "k", "v")


def short(**fields: Any) -> PersonalizeConfig:
    return PersonalizeConfig(**({"steps": 2, "batch_size": 2, "base_lr": 1e-4, "save_dtype": "float32"} | fields))


def pretrained(method: Method, backbone: Backbone) -> E4TModule:
    """A module in which nothing is at its initial zero."""
    module = method.build(backbone, CLIP_DIMS)
    assert isinstance(module, E4TModule)
    g = rng(11)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.02)
    return module


def noisy(backbone: Backbone, size: int = 4, masked: bool = False) -> NoisyBatch:
    batch = batch_of(backbone, size)
    mask = torch.rand(size, 1, *backbone.latent_shape[1:], generator=rng(5)) if masked else None
    prompts = with_placeholder(backbone, batch["templates"])
    return draw_noise(backbone, batch["latent_moments"], prompts, batch["clip_cls"], mask, rng(6))


def draw(method: Method, module: E4TModule, backbone: Backbone, adapter: Adapter, identity: Identity) -> Tensor:
    conditioning = method.conditioning(module, backbone, adapter, identity, [f"a photo of {backbone.placeholder}"])
    return sample(backbone, conditioning, SamplerConfig(steps=2, guidance=2.0), seeds=[4])


# --- the objective


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


# --- tuning on one image


def diffusion_error(method: Method, module: E4TModule, backbone: Backbone, adapter: Adapter, one: Identity) -> float:
    """The tuned image's denoising loss over a fixed set of noise levels."""
    levels, g = 12, rng(77)
    moments = backbone.to_moments(one.images_N3HW[:1]).expand(levels, -1, -1, -1)
    prompts = [f"a photo of {backbone.placeholder}"] * levels
    batch = draw_noise(backbone, moments, prompts, one.clip_cls_NLD[:1].expand(levels, -1, -1), None, g)
    with torch.no_grad(), applied(module, backbone, adapter, one.clip_cls_NLD[0]):
        module.offsets.condition(batch.cls)
        return float(objective(method.config, module, backbone, batch, 0.0).total)


def test_fifteen_steps_learn_the_image(backbone: Backbone, make_method: Make) -> None:
    tuning = PersonalizeConfig(steps=15, batch_size=16, base_lr=1e-5, mask=False)
    method, identity = make_method(personalize=tuning), identity_of("ann", 1)
    module = method.build(backbone, CLIP_DIMS)
    adapter = method.personalize(module, backbone, [identity])[0]
    untuned = diffusion_error(method, module, backbone, Adapter("e4t", "ann", {}, adapter.meta), identity)
    tuned = diffusion_error(method, module, backbone, adapter, identity)
    assert tuned < 0.9 * untuned
    assert len(adapter.meta["losses"]) == 15


@pytest.mark.parametrize(
    ("tune", "groups"),
    [
        ("all", {"denoiser", "module", "offsets"}),
        ("components", {"module", "offsets"}),
        ("denoiser", {"denoiser"}),
        ("none", set()),
    ],
)
def test_tune_says_what_changes(tune: str, groups: set[str], backbone: Backbone, make_method: Make) -> None:
    method, identity = make_method(personalize=short(tune=tune)), identity_of("ann", 1)
    module = pretrained(method, backbone)
    adapter = method.personalize(module, backbone, [identity])[0]
    assert {key.partition(".")[0] for key in adapter.tensors} == groups
    assert adapter.meta["tuned"] == tune
    assert adapter.meta["steps"] == (0 if tune == "none" else 2)
    draw(method, module, backbone, adapter, identity)


@pytest.mark.parametrize("tune", ["all", "components", "denoiser"])
@pytest.mark.parametrize("kind", KINDS)
def test_adapter_reproduces_the_tuned_model(
    kind: str, tune: str, backbone: Backbone, make_method: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, identity, seen = make_method(offsets=kind, personalize=short(tune=tune)), identity_of("ann", 1), []
    module = pretrained(method, backbone)
    original = personalization.changes

    def measure() -> float:
        batch = noisy(backbone, 2)
        cls = identity.clip_cls_NLD[:1].expand(2, -1, -1)
        module.offsets.condition(cls)
        batch = NoisyBatch(batch.x0, batch.eps, batch.t, batch.ids, cls)
        return float(objective(method.config, module, backbone, batch, 0.1).total)

    def spy(*args: Any) -> dict[str, Tensor]:
        with torch.no_grad(), module.offsets.on(backbone.projections(QKV)):
            seen.append(measure())
        return original(*args)

    monkeypatch.setattr(personalization, "changes", spy)
    adapter = method.personalize(module, backbone, [identity])[0]
    with torch.no_grad(), module.offsets.on(backbone.projections(QKV)):
        untuned = measure()
    with torch.no_grad(), applied(module, backbone, adapter, identity.clip_cls_NLD[0]):
        seen.append(measure())
    assert seen[1] == pytest.approx(seen[0], rel=1e-5)
    assert abs(seen[0] - untuned) > 1e-3 * untuned, "the comparison would hold for any adapter"


def test_short_types_store_differences_well(backbone: Backbone, make_method: Make) -> None:
    identity, adapters = identity_of("ann", 1), {}
    for dtype in ("float32", "bfloat16"):
        method = make_method(personalize=short(save_dtype=dtype))
        adapters[dtype] = method.personalize(pretrained(method, backbone), backbone, [identity])[0]
    long, brief = adapters["float32"], adapters["bfloat16"]
    assert brief.meta["bytes"] < 0.6 * long.meta["bytes"]
    key = "denoiser.conv_in.weight"
    assert brief.tensors[key].dtype == torch.bfloat16
    assert (brief.tensors[key].float() - long.tensors[key]).abs().max() < 0.005 * long.tensors[key].abs().max()


def test_pieces_of_a_batch_add_up_to_it(backbone: Backbone, make_method: Make) -> None:
    results = []
    for size in (None, 2):
        method = make_method(personalize=short(steps=1, batch_size=5, micro_batch_size=size))
        results.append(method.personalize(pretrained(method, backbone), backbone, [identity_of("ann", 1)])[0])
    assert results[0].meta["losses"] == pytest.approx(results[1].meta["losses"], rel=1e-5)


def test_mask_is_used_where_there_is_one(backbone: Backbone, make_method: Make) -> None:
    method, identity = make_method(personalize=short()), identity_of("ann", 1)
    module = pretrained(method, backbone)
    without = Identity(identity.id, identity.images_N3HW, identity.clip_cls_NLD, None, identity.seed)
    masked, plain = method.personalize(module, backbone, [identity, without])
    assert (masked.meta["masked"], plain.meta["masked"]) == (True, False)
    assert masked.meta["losses"] != plain.meta["losses"]
    off = make_method(personalize=short(mask=False)).personalize(module, backbone, [identity])[0]
    assert off.meta["losses"] == plain.meta["losses"]
    identity.masks_N1HW.zero_()
    with pytest.raises(DataError, match="no foreground"):
        method.personalize(module, backbone, [identity])


def test_image_is_the_first_or_drawn_by_the_identity(backbone: Backbone, make_method: Make) -> None:
    first, drawn = (make_method(personalize=short(tune="none", image=image)) for image in ("first", "drawn"))
    module = first.build(backbone, CLIP_DIMS)
    people = [identity_of(str(i), i, images=4) for i in range(8)]
    assert {a.meta["image"] for a in first.personalize(module, backbone, people)} == {0}
    indices = [a.meta["image"] for a in drawn.personalize(module, backbone, people)]
    assert len(set(indices)) > 1
    assert indices == [a.meta["image"] for a in drawn.personalize(module, backbone, people)]


@pytest.mark.parametrize("after", [0, 1])
def test_everything_is_given_back_after_a_failure(
    after: int, backbone: Backbone, make_method: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make_method(personalize=short())
    module = pretrained(method, backbone)
    before, flags, calls = snapshot(module), [p.requires_grad for p in module.parameters()], []

    def fail(*args: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            raise RuntimeError("worker lost")
        return objective(*args)

    monkeypatch.setattr(personalization, "objective", fail)
    with pytest.raises(RuntimeError, match="worker lost"):
        method.personalize(module, backbone, [identity_of("ann", 1)])
    assert_same(before, snapshot(module))
    assert [p.requires_grad for p in module.parameters()] == flags
    assert not any("parametrizations" in name for name, _ in backbone.named_parameters())


def test_diverging_tuning_names_its_step(backbone: Backbone, make_method: Make) -> None:
    method = make_method(personalize=short(base_lr=1e18))
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step 1 of 2; lower method\.personalize\.base_lr"):
        method.personalize(pretrained(method, backbone), backbone, [identity_of("ann", 1)])


def test_half_precision_backbone_is_tuned_finer_than_its_rounding(make_method: Make) -> None:
    cfg = BackboneConfig(path="bundled:tiny", random_seed=0, resolution=RESOLUTION, dtype="bfloat16")
    half, identity = load_backbone(cfg), identity_of("ann", 1)
    method = make_method(personalize=short(base_lr=1e-6))
    module, before = pretrained(method, half), snapshot(half)
    adapter = method.personalize(module, half, [identity])[0]
    delta = adapter.tensors["denoiser.conv_in.weight"]
    spacing = before["unet.conv_in.weight"].float().abs().max() * 2**-8
    assert delta.abs().max() < spacing
    assert (delta != 0).float().mean() > 0.9, "steps were lost in rounding"
    image = draw(method, module, half, adapter, identity)
    assert torch.isfinite(image).all()
    assert_same(before, snapshot(half))


# --- generation


def test_embedding_is_predicted_at_every_step(backbone: Backbone, make_method: Make) -> None:
    method, identity = make_method(personalize=short(tune="none")), identity_of("ann", 1)
    module = pretrained(method, backbone)
    adapter = method.personalize(module, backbone, [identity])[0]
    conditioning = method.conditioning(module, backbone, adapter, identity, [backbone.placeholder] * 2)
    sample(backbone, conditioning, SamplerConfig(steps=5), seeds=[1, 2])
    norms, steps = conditioning.trace["embedding_norm"], conditioning.trace["t"]
    assert len(norms) == len(steps) == 5
    assert len(set(norms)) == 5
    assert steps == sorted(steps, reverse=True)


@pytest.mark.parametrize(("t_stop", "predicted"), [(1000, 1), (500, None), (0, 5), (None, 5)])
def test_t_stop_keeps_the_embedding(
    t_stop: int | None, predicted: int | None, backbone: Backbone, make_method: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, identity = make_method(t_stop=t_stop, personalize=short(tune="none")), identity_of("ann", 1)
    module = pretrained(method, backbone)
    adapter = method.personalize(module, backbone, [identity])[0]
    conditioning, calls = method.conditioning(module, backbone, adapter, identity, [backbone.placeholder]), []
    encode = backbone.encode_text
    monkeypatch.setattr(backbone, "encode_text", lambda *a: (calls.append(len(a)), encode(*a))[1])
    sample(backbone, conditioning, SamplerConfig(steps=5, guidance=1.0), seeds=[1])
    steps, norms = conditioning.trace["t"], conditioning.trace["embedding_norm"]
    if predicted is None:
        predicted = sum(t > t_stop for t in steps)
        assert 1 < predicted < 5
    assert len(calls) == predicted
    assert norms[predicted - 1 :] == [norms[predicted - 1]] * (6 - predicted)


def test_without_refinement_one_embedding_serves_all_steps(backbone: Backbone, make_method: Make) -> None:
    method = make_method(iterative_refinement=False, personalize=short(tune="none"))
    module, identity = pretrained(method, backbone), identity_of("ann", 1)
    adapter = method.personalize(module, backbone, [identity])[0]
    conditioning = method.conditioning(module, backbone, adapter, identity, [backbone.placeholder])
    sample(backbone, conditioning, SamplerConfig(steps=4), seeds=[1])
    assert len(set(conditioning.trace["embedding_norm"])) == 1


def test_negative_prompt_and_guidance_change_the_picture(backbone: Backbone, make_method: Make) -> None:
    method, identity = make_method(personalize=short(tune="none")), identity_of("ann", 1)
    module = pretrained(method, backbone)
    adapter = method.personalize(module, backbone, [identity])[0]
    pictures = []
    for cfg in (
        SamplerConfig(steps=2, guidance=1.0),
        SamplerConfig(steps=2, guidance=4.0),
        SamplerConfig(steps=2, guidance=4.0, negative_prompt="a sketch"),
    ):
        conditioning = method.conditioning(module, backbone, adapter, identity, [backbone.placeholder])
        pictures.append(sample(backbone, conditioning, cfg, seeds=[1]))
    assert not torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[1], pictures[2])


def test_generation_uses_the_image_that_was_tuned_on(backbone: Backbone, make_method: Make) -> None:
    method, identity = make_method(personalize=short(tune="none")), identity_of("ann", 1, images=2)
    module = pretrained(method, backbone)
    meta = method.personalize(module, backbone, [identity])[0].meta
    pictures = [
        draw(method, module, backbone, Adapter("e4t", "ann", {}, meta | {"image": i}), identity) for i in (0, 1)
    ]
    assert not torch.equal(*pictures)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"unet.x": torch.ones(1)}, "no E4T tensor is called 'unet.x'"),
        ({"denoiser.absent": torch.ones(1)}, r"denoiser\.absent is \(1,\), but here it is nothing"),
        ({"denoiser.conv_in.bias": torch.ones(3)}, r"denoiser\.conv_in\.bias is \(3,\), but here it is \(64,\)"),
    ],
)
def test_foreign_tensors_are_refused(
    tensors: dict[str, Tensor], message: str, backbone: Backbone, make_method: Make
) -> None:
    method, identity = make_method(personalize=short(tune="none")), identity_of("ann", 1)
    module = method.build(backbone, CLIP_DIMS)
    meta = method.personalize(module, backbone, [identity])[0].meta
    with pytest.raises(CheckpointMismatch, match=message):
        draw(method, module, backbone, Adapter("e4t", "ann", tensors, meta), identity)
    with pytest.raises(CheckpointMismatch, match="belongs to method 'lora', not 'e4t'"):
        draw(method, module, backbone, Adapter("lora", "ann", {}, meta), identity)
