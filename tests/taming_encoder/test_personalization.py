"""An artifact is one embedding; drawing puts it and the trained weights on, and takes them off."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.errors import CheckpointMismatch, UsageError
from e4t_core.methods import Adapter
from e4t_core.methods.taming_encoder import TamingEncoder, TamingEncoderModule
from e4t_core.sampling import SamplerConfig, sample
from tests.e4t.conftest import CLIP_DIMS, RESOLUTION, identity_of
from tests.taming_encoder.conftest import Make, trained

SAMPLER = SamplerConfig(steps=2, guidance=3.0)


def draw(method: TamingEncoder, module: TamingEncoderModule, backbone: Backbone, adapter: Adapter) -> Tensor:
    prompts = [f"a photo of {backbone.placeholder}"]
    conditioning = method.conditioning(module, backbone, adapter, identity_of("ann", 1), prompts)
    return sample(backbone, conditioning, SAMPLER, seeds=[4, 5])


def test_an_artifact_is_one_embedding_and_no_step(make_method: Make, backbone: Backbone) -> None:
    method = make_method()
    module = trained(method, backbone)
    people = [identity_of(f"p{i}", i) for i in range(50)]
    adapters = method.personalize(module, backbone, people)
    assert [a.identity for a in adapters] == [p.id for p in people]
    for adapter, one in zip(adapters, people, strict=True):
        assert torch.equal(adapter.tensors["object"], module.embed(one.clip_cls_NLD)[0])
        assert adapter.meta["steps"] == 0
        assert adapter.meta["bytes"] == 4 * CLIP_DIMS[1]


def test_several_images_of_one_object_are_averaged(make_method: Make, backbone: Backbone) -> None:
    method = make_method()
    module, many = trained(method, backbone), identity_of("ann", 1, images=3)
    together = method.personalize(module, backbone, [many])[0]
    singles = [
        method.personalize(module, backbone, [replace(many, clip_cls_NLD=many.clip_cls_NLD[i : i + 1])])[0]
        for i in range(3)
    ]
    assert together.meta["images"] == 3
    assert together.meta["bytes"] == singles[0].meta["bytes"]
    mean = torch.stack([one.tensors["object"] for one in singles]).mean(0)
    torch.testing.assert_close(together.tensors["object"], mean)
    assert not torch.equal(draw(method, module, backbone, together), draw(method, module, backbone, singles[0]))


def test_the_trained_denoiser_draws_and_the_backbone_does_not(make_method: Make, backbone: Backbone) -> None:
    """With branches that add nothing, what differs from the backbone is the denoiser's weights."""
    method = make_method()
    module = method.build(backbone, CLIP_DIMS)
    assert isinstance(module, TamingEncoderModule)
    adapter = method.personalize(module, backbone, [identity_of("ann", 1)])[0]
    first = draw(method, module, backbone, adapter)
    with torch.no_grad():
        next(iter(module.denoiser.values())).mul_(1.1)
    assert not torch.equal(draw(method, module, backbone, adapter), first)


def test_a_backbone_in_bfloat16_gets_weights_in_bfloat16(make_method: Make) -> None:
    config = BackboneConfig(path="bundled:tiny", random_seed=0, resolution=RESOLUTION, dtype="bfloat16")
    backbone, method = load_backbone(config), make_method()
    module = method.build(backbone, CLIP_DIMS)
    assert isinstance(module, TamingEncoderModule)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    with module.on(backbone, torch.bfloat16):
        assert {p.dtype for p in backbone.denoiser_parameters().values()} == {torch.bfloat16}
    adapter = method.personalize(module, backbone, [identity_of("ann", 1)])[0]
    assert bool(draw(method, trained(method, backbone), backbone, adapter).isfinite().all())


def test_what_does_not_fit_is_refused(make_method: Make, backbone: Backbone) -> None:
    method = make_method()
    module = trained(method, backbone)
    adapter = method.personalize(module, backbone, [identity_of("ann", 1)])[0]
    wide = replace(adapter, tensors={"object": torch.zeros(1, 32)})
    with pytest.raises(CheckpointMismatch, match=r"embedding of \(1, 32\), and these weights read \(1, 24\)"):
        draw(method, module, backbone, wide)
    with pytest.raises(CheckpointMismatch, match="belongs to method 'e4t', not 'taming_encoder'"):
        draw(method, module, backbone, replace(adapter, method="e4t"))
    with pytest.raises(UsageError, match="adapters of method 'taming_encoder' are not low-rank"):
        method.low_rank_layers(adapter, backbone)
