"""Generation step by step: refinement, t_stop, guidance, and adapters that do not fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.errors import CheckpointMismatch
from e4t_core.methods import Adapter, Method
from e4t_core.sampling import SamplerConfig, sample
from tests.e4t.conftest import CLIP_DIMS, identity_of
from tests.e4t.e4t_parts import draw, pretrained, short

Make = Callable[..., Method]


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
        ({"unet.x": torch.ones(1)}, "no tensor of method 'e4t' is called 'unet.x'"),
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
    with pytest.raises(
        CheckpointMismatch, match=r"from module .* the checkpoint and backbone that it was personalized"
    ):
        draw(method, pretrained(method, backbone), backbone, Adapter("e4t", "ann", {}, meta), identity)
