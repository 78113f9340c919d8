"""Which triplets a batch becomes (eq. 3 and 4), and what their loss reaches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.errors import DataError, UsageError
from e4t_core.methods import References
from e4t_core.methods.taming_encoder import TamingEncoderModule
from e4t_core.methods.taming_encoder import method as method_file
from e4t_core.methods.taming_encoder.objective import captions, in_domain, objects
from tests.e4t.conftest import CLIP_DIMS, RESOLUTION, rng
from tests.taming_encoder.conftest import Make, pairs, trained

PARTS = {"faces": "domain", "photos": "general"}


def drawn(make_method: Make, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> dict[str, Any]:
    """What reaches the loss of a large batch, half of it general."""
    seen: dict[str, Any] = {}

    def keep(module: Any, backbone: Backbone, x0: Any, eps: Any, t: Any, ids: Any, object_BLD: Any) -> None:
        seen.update(object=object_BLD, ids=ids)

    monkeypatch.setattr(method_file, "objective", keep)
    method = make_method(parts=PARTS, **fields)
    module = trained(method, backbone)
    batch = pairs(backbone, 200, parts=["faces", "photos"] * 100)
    method.pretrain_loss(module, backbone, batch, rng(4))
    return {**seen, "own": module.embed(batch["clip_cls"]), "other": module.embed(batch["reference_clip_cls"])}


def test_general_images_get_phi_and_domain_images_their_own(
    make_method: Make, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = drawn(make_method, backbone, monkeypatch, omega=0.0)
    assert not seen["object"][1::2].any()
    assert torch.equal(seen["object"][::2], seen["own"][::2])


@pytest.mark.parametrize("omega", [0.3, 1.0])
def test_omega_of_the_domain_images_get_another_images(
    make_method: Make, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, omega: float
) -> None:
    seen = drawn(make_method, backbone, monkeypatch, omega=omega)
    crossed = (seen["object"] == seen["other"]).flatten(1).all(1)[::2]
    kept = (seen["object"] == seen["own"]).flatten(1).all(1)[::2]
    assert bool((crossed ^ kept).all())
    assert float(crossed.float().mean()) == pytest.approx(omega, abs=3 * math.sqrt(omega * (1 - omega) / 100))
    assert not seen["object"][1::2].any()


def test_captions_are_dropped_as_often_as_configured(
    make_method: Make, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = backbone.tokenize([""])
    for share in (0.0, 0.25, 1.0):
        ids = drawn(make_method, backbone, monkeypatch, drop_caption=share)["ids"]
        assert float((ids == empty).all(1).float().mean()) == pytest.approx(share, abs=0.1)


def test_what_the_method_reads(make_method: Make) -> None:
    assert make_method().references == References(("clip",))
    assert make_method(nearest=0.4).references == References(("clip",), 0.4)
    assert "identity" in make_method(nearest=0.4).columns
    assert make_method(omega=0.0, nearest=0.4).references is None
    assert make_method(omega=0.0, nearest=0.4).columns == ("latent", "clip", "caption")


def test_sentences_of_the_domain_and_of_the_general_set(make_method: Make) -> None:
    batch = {"texts": ["a photo of ann, calm", "a dog, brown"], "templates": ["a photo of {}, calm", "a {}"]}
    inside = [True, False]
    assert captions(make_method().config, batch, inside) == batch["texts"]
    assert captions(make_method(captions="coarse").config, batch, inside) == ["a photo of a face, calm", "a dog, brown"]
    assert captions(make_method(captions="class_name").config, batch, inside) == ["a face", "a dog, brown"]


def test_a_part_that_nobody_placed_is_refused(make_method: Make) -> None:
    config = make_method(parts=PARTS).config
    assert in_domain(config, ["faces", "photos", None]) == [True, False, True]
    with pytest.raises(DataError, match=r"part 'cats' .* method.parts names faces, photos; add method.parts.cats"):
        in_domain(config, ["faces", "cats"])


def test_levels_are_the_last_ones(make_method: Make, backbone: Backbone) -> None:
    module = make_method(levels=2).build(backbone, CLIP_DIMS)
    assert isinstance(module, TamingEncoderModule)
    cls = torch.randn(1, *CLIP_DIMS, generator=rng())
    embedded = module.embed(cls * 7 + 3)
    torch.testing.assert_close(embedded, module.embed(cls), rtol=1e-4, atol=1e-4)  # of one scale
    assert torch.equal(embedded, module.embed((cls * 7 + 3)[:, 1:]))
    one = torch.tensor([True])
    assert torch.equal(objects(module, cls, cls, one, ~one), torch.zeros(1, 2, CLIP_DIMS[1]))
    with pytest.raises(UsageError, match=r"method\.levels is 4, and CLIP features have 3 levels"):
        make_method(levels=4).build(backbone, CLIP_DIMS)


def test_attention_only_leaves_the_denoiser_as_it_is(make_method: Make, backbone: Backbone) -> None:
    method = make_method(tune="attention")
    module = trained(method, backbone)
    assert not list(module.denoiser.parameters())
    assert len(method.parameter_groups(module)) == 1
    with method.pretraining(module, backbone):
        method.pretrain_loss(module, backbone, pairs(backbone, 2), rng()).total.backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())
    assert not any(p.grad is not None for p in backbone.parameters())


def test_rates_of_new_and_old_weights(make_method: Make, backbone: Backbone) -> None:
    method = make_method(denoiser_rate=0.1)
    module = method.build(backbone, CLIP_DIMS)
    new, old = method.parameter_groups(module)
    assert (new.rate, old.rate) == (1.0, 0.1)
    assert sum(p.numel() for p in old.parameters) == sum(p.numel() for p in backbone.denoiser_parameters().values())


def test_recomputing_activations_changes_no_gradient(make_method: Make) -> None:
    """With `train.gradient_checkpointing` blocks run again in the backward pass, with hooks, weights and objects."""
    gradients = []
    for checkpointing in (False, True):
        backbone = load_backbone(BackboneConfig(path="bundled:tiny", random_seed=0, resolution=RESOLUTION))
        if checkpointing:
            backbone.enable_gradient_checkpointing()
            backbone.train()
        method = make_method()
        module = trained(method, backbone)
        with method.pretraining(module, backbone):
            method.pretrain_loss(module, backbone, pairs(backbone, 2), rng()).total.backward()
        gradients.append({name: p.grad for name, p in module.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)
