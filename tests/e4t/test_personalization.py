"""Tuning on one image: what changes, what is stored, what is given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.errors import DataError, UserError
from e4t_core.methods import Adapter, Identity, Method
from e4t_core.methods.e4t import E4TModule, PersonalizeConfig, personalization
from e4t_core.methods.e4t.adapter import applied
from e4t_core.methods.e4t.objective import NoisyBatch, noisy_batch, objective
from tests.e4t.conftest import CLIP_DIMS, RESOLUTION, assert_same, identity_of, rng, snapshot
from tests.e4t.e4t_parts import QKV, draw, noisy, pretrained, short

Make = Callable[..., Method]
KINDS = ("regularized", "direct", "none", "hypernetwork")


def diffusion_error(method: Method, module: E4TModule, backbone: Backbone, adapter: Adapter, one: Identity) -> float:
    """The tuned image's denoising loss over a fixed set of noise levels."""
    levels, g = 12, rng(77)
    moments = backbone.to_moments(one.images_N3HW[:1]).expand(levels, -1, -1, -1)
    prompts = [f"a photo of {backbone.placeholder}"] * levels
    batch = noisy_batch(backbone, moments, prompts, one.clip_cls_NLD[:1].expand(levels, -1, -1), None, g)
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
    method, identity, seen = (
        make_method(offsets=kind, personalize=short(tune=tune, base_lr=1e-3)),
        identity_of("ann", 1),
        [],
    )
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
