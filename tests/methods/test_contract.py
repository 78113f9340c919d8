"""What holds for every personalization method. A new method is tested by being in the folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from e4t_core.adapters.lidb import Space
from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.errors import CheckpointMismatch, DataError, UsageError
from e4t_core.methods import METHODS, Adapter, Conditioning, Identity, Method
from e4t_core.record import Record
from e4t_core.sampling import SamplerConfig, TextConditioning, sample
from e4t_core.storage import Store
from e4t_core.training import TrainConfig, load_adapter, load_module, save_adapter, save_module, train
from tests.e4t.conftest import CLIP_DIMS, RESOLUTION, Fixed, assert_same, batch_of, identity_of, rng, snapshot

RECORD = Record.of("adapter", {"seed": 0})
PROMPTS = ["a photo of {}", "{} in the snow"]
SAMPLER = SamplerConfig(steps=2, guidance=3.0, scheduler="ddim")

Make = Callable[..., Method]
every = pytest.mark.parametrize("name", METHODS.names())
pretraining = pytest.mark.parametrize("name", [name for name in METHODS.names() if METHODS.get(name).pretrains])


def perturbed(module: nn.Module) -> nn.Module:
    """As if pre-trained: nothing is at its initial zero any more."""
    g = rng(11)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.02)
    return module


def built(make_method: Make, name: str, backbone: Backbone) -> tuple[Method, nn.Module]:
    """A method whose personalization is short, and its module."""
    method = make_method(name)
    # a larger eps than usual: Adam's first steps are +-lr even where a gradient is nothing but rounding
    short = {"steps": 2, "batch_size": 2, "base_lr": 1e-4, "samples": 2, "rank": 2, "eps": 1e-4}
    if hasattr(method.config, "personalize"):
        fields = {k: v for k, v in short.items() if k in type(method.config.personalize).model_fields}
        method = make_method(name, personalize=method.config.personalize.model_copy(update=fields))
    return method, method.build(backbone, CLIP_DIMS)


def image(method: Method, module: nn.Module, backbone: Backbone, adapter: Adapter, identity: Identity) -> Tensor:
    prompts = [p.replace("{}", backbone.placeholder) for p in PROMPTS]
    conditioning = method.conditioning(module, backbone, adapter, identity, prompts)
    return sample(backbone, conditioning, SAMPLER, seeds=[1, 2])


def batch_for(method: Method, backbone: Backbone) -> dict[str, Any]:
    """Two samples with every column that the method reads."""
    batch = batch_of(backbone, 2)
    if "lidb" in method.columns:
        numbers = Space.of(backbone, method.config.lidb).numbers
        batch["lidb"] = torch.randn(2, numbers, generator=rng(7))
    if method.references is not None:
        other = batch_of(backbone, 2, seed=8)
        batch |= {f"reference_{key}": value for key, value in other.items()}
    return batch


def prompted(method: Method, backbone: Backbone, prompts: list[str]) -> Conditioning:
    """The untouched backbone with the words where the concept is that the method starts from."""
    if hasattr(method.config, "prompt"):
        return TextConditioning(backbone, [p.replace("{}", method.config.prompt) for p in prompts])
    word = backbone.token_embedding(method.config.domain_word)

    class DomainWord(Conditioning):
        def text(self, x_t_BChw: Tensor, t_B: Tensor, step: int) -> Tensor:
            ids = backbone.tokenize(self.prompts)
            return backbone.encode_text(ids, word.expand(len(ids), -1))

    return DomainWord(backbone, [p.replace("{}", backbone.placeholder) for p in prompts])


def loss_of(method: Method, module: nn.Module, backbone: Backbone, batch: dict[str, Any]) -> Tensor:
    with method.pretraining(module, backbone), method.step(module):
        return method.pretrain_loss(module, backbone, batch, rng(3)).total


@pretraining
def test_gradients_reach_what_is_trained_and_nothing_else(name: str, backbone: Backbone, make_method: Make) -> None:
    method, module = built(make_method, name, backbone)
    perturbed(module)
    with method.pretraining(module, backbone), method.step(module):
        losses = method.pretrain_loss(module, backbone, batch_for(method, backbone), rng())
        losses.total.backward()
    assert all(torch.isfinite(term) for term in losses.terms.values())
    silent = [n for n, p in module.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not silent, silent
    assert not any(p.grad is not None for p in backbone.parameters())


@pretraining
def test_checkpointing_changes_no_gradient(name: str, make_method: Make) -> None:
    """The backward pass computes layers again, with the weights and objects of its own micro-batch."""
    backbone = load_backbone(BackboneConfig(path="bundled:tiny", random_seed=0, resolution=RESOLUTION))

    def gradients() -> list[Tensor]:
        method, module = built(make_method, name, backbone)
        perturbed(module)
        with method.pretraining(module, backbone), method.step(module):
            for seed in (1, 2):
                method.pretrain_loss(module, backbone, batch_for(method, backbone), rng(seed)).total.backward()
        return [p.grad for p in module.parameters() if p.grad is not None]

    plain = gradients()
    backbone.enable_gradient_checkpointing()
    again = gradients()
    assert plain
    torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-7)


@pretraining
def test_backbone_is_untouched_by_pretraining(name: str, backbone: Backbone, make_method: Make) -> None:
    method, module = built(make_method, name, backbone)
    before, names = snapshot(backbone), list(backbone.denoiser_parameters())
    start = snapshot(module)
    cfg = TrainConfig(steps=2, batch_size=2, base_lr=1e-3)
    train(method, module, backbone, Fixed([batch_for(method, backbone)]), cfg, seed=0)
    assert_same(before, snapshot(backbone))
    assert list(backbone.denoiser_parameters()) == names
    assert any(not torch.equal(start[n], t) for n, t in module.state_dict().items())


@every
def test_step_0_equals_the_backbone(name: str, backbone: Backbone, make_method: Make) -> None:
    """With plain words where the concept is, the untouched backbone draws the same picture."""
    method, module = built(make_method, name, backbone)
    identity = identity_of("ann", 1)
    untouched = Adapter(name, "ann", {}, method.personalize(module, backbone, [identity])[0].meta)
    ours = image(method, module, backbone, untouched, identity)
    assert torch.equal(ours, sample(backbone, prompted(method, backbone, PROMPTS), SAMPLER, seeds=[1, 2]))


@pretraining
def test_same_seed_same_loss(name: str, backbone: Backbone, make_method: Make) -> None:
    method, module = built(make_method, name, backbone)
    _, again = built(make_method, name, backbone)
    assert_same(snapshot(module), snapshot(again))
    batch = batch_for(method, backbone)
    assert torch.equal(loss_of(method, module, backbone, batch), loss_of(method, again, backbone, batch))


@pytest.mark.parametrize("name", [name for name in METHODS.names() if not METHODS.get(name).pretrains])
def test_without_pretraining_there_is_nothing_to_train(name: str, backbone: Backbone, make_method: Make) -> None:
    method, module = built(make_method, name, backbone)
    assert not module.state_dict()
    assert not method.columns
    with pytest.raises(UsageError, match=f"method '{name}' needs no pre-training"):
        method.pretrain_loss(module, backbone, batch_of(backbone, 2), rng())


@every
def test_several_images_are_learned_from_or_refused(name: str, backbone: Backbone, make_method: Make) -> None:
    """Nothing is left out in silence: the adapter is another than that of the first image alone, or says that it is
    that one's, or there is none."""
    method, module = built(make_method, name, backbone)
    perturbed(module)
    many = identity_of("ann", 1, images=3)
    parts = {f: getattr(many, f)[:1] for f in ("images_N3HW", "clip_cls_NLD", "masks_N1HW", "clip_tokens_NTD")}
    one = method.personalize(module, backbone, [replace(many, **parts)])[0]
    if not method.several_images and "image" not in one.meta:
        message = rf"'{name}' learns an identity from one image.*'ann' comes with 3.*images=1"
        with pytest.raises(UsageError, match=message):
            method.personalize(module, backbone, [many])
        return
    other = method.personalize(module, backbone, [many])[0]
    assert method.several_images == any(not torch.equal(t, other.tensors[n]) for n, t in one.tensors.items())
    said = "images" if method.several_images else "image"
    assert (one.meta[said], other.meta[said]) == ((1, 3) if method.several_images else (0, 0))


@every
def test_same_seed_same_result(name: str, backbone: Backbone, make_method: Make) -> None:
    method, module = built(make_method, name, backbone)
    perturbed(module)
    one, two = (method.personalize(module, backbone, [identity_of("ann", 1)])[0] for _ in range(2))
    assert_same(one.tensors, two.tensors)
    other = method.personalize(module, backbone, [replace(identity_of("ann", 1), seed=2)])[0]
    assert method.tunes == any(not torch.equal(t, other.tensors[n]) for n, t in one.tensors.items())


@every
def test_personalization_gives_everything_back(name: str, backbone: Backbone, make_method: Make) -> None:
    method, module = built(make_method, name, backbone)
    perturbed(module)
    before = snapshot(backbone), snapshot(module), {n: p.requires_grad for n, p in module.named_parameters()}
    adapter = method.personalize(module, backbone, [identity_of("ann", 1)])[0]
    image(method, module, backbone, adapter, identity_of("ann", 1))
    assert_same(before[0], snapshot(backbone))
    assert_same(before[1], snapshot(module))
    assert {n: p.requires_grad for n, p in module.named_parameters()} == before[2]
    assert (adapter.meta["steps"] > 0) == method.tunes
    assert adapter.meta["bytes"] == sum(t.numel() * t.element_size() for t in adapter.tensors.values()) > 0


def relative_distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Of what is not the same bit for bit."""
    changed = [name for name in one if not torch.equal(one[name], other[name])]
    if not changed:
        return 0.0
    a, b = (torch.cat([tensors[name].flatten().float() for name in changed]) for tensors in (one, other))
    return float((a - b).norm() / b.norm())


@every
def test_company_changes_nothing(name: str, backbone: Backbone, make_method: Make) -> None:
    method, module = built(make_method, name, backbone)
    perturbed(module)
    people = [identity_of("ann", 1), identity_of("bob", 2), identity_of("cleo", 3)]
    together = method.personalize(module, backbone, people)
    assert [a.identity for a in together] == ["ann", "bob", "cleo"]
    for identity, adapter in zip(people, together, strict=True):
        alone = method.personalize(module, backbone, [identity])[0]
        assert alone.tensors.keys() == adapter.tensors.keys()
        assert relative_distance(adapter.tensors, alone.tensors) < 1e-5


@every
def test_drawn_together_is_drawn_alone(name: str, backbone: Backbone, make_method: Make) -> None:
    """Two images of the first person and one of the second, in one batch with guidance."""
    method, module = built(make_method, name, backbone)
    perturbed(module)
    people = [identity_of("ann", 1), identity_of("bob", 2)]
    adapters = method.personalize(module, backbone, people)
    for adapter in adapters:  # as after many steps: no two people are alike
        adapter.tensors = {n: t + 0.1 * torch.randn(t.shape, generator=rng(len(n))) for n, t in adapter.tensors.items()}
    adapters[1].tensors = {n: -t for n, t in adapters[1].tensors.items()}
    first, second = (p.replace("{}", backbone.placeholder) for p in PROMPTS)
    prompts = [[first, second], [second]]
    if not method.draws_together:
        with pytest.raises(NotImplementedError, match=f"method '{name}' draws one identity at a time"):
            method.conditioning_together(module, backbone, adapters, people, prompts)
        return
    together = sample(
        backbone, method.conditioning_together(module, backbone, adapters, people, prompts), SAMPLER, seeds=[1, 2, 2]
    )
    alone = [
        sample(backbone, method.conditioning(module, backbone, adapter, who, said), SAMPLER, seeds=seeds)
        for adapter, who, said, seeds in zip(adapters, people, prompts, ([1, 2], [2]), strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-3, rtol=0)
    assert (together[1] - together[2]).abs().max() > 0.02, "same prompt, same noise, another person"


@every
def test_saved_and_loaded_adapter_draws_the_same(
    name: str, backbone: Backbone, make_method: Make, tmp_path: Path
) -> None:
    method, module = built(make_method, name, backbone)
    perturbed(module)
    identity = identity_of("ann", 1)
    adapter = method.personalize(module, backbone, [identity])[0]
    store = Store(tmp_path)
    save_adapter(store, "people/ann", adapter, RECORD)
    loaded, record = load_adapter(store, "people/ann")
    assert (loaded.identity, loaded.meta, record.facts["identity"]) == ("ann", adapter.meta, "ann")
    ours = image(method, module, backbone, adapter, identity)
    assert torch.equal(ours, image(method, module, backbone, loaded, identity))
    plain = Adapter(name, "ann", {}, adapter.meta)
    assert not torch.equal(ours, image(method, module, backbone, plain, identity))


@every
def test_module_saved_and_loaded_is_the_same(name: str, backbone: Backbone, make_method: Make, tmp_path: Path) -> None:
    _, module = built(make_method, name, backbone)
    perturbed(module)
    save_module(Store(tmp_path), "module.safetensors", module, Record.of("module", {"a": 1}))
    _, fresh = built(make_method, name, backbone)
    record = load_module(Store(tmp_path), "module.safetensors", fresh)
    assert record.recipe == {"a": 1}
    assert_same(snapshot(module), snapshot(fresh))


@pretraining
def test_checkpoint_of_another_setting_is_refused(
    name: str, backbone: Backbone, make_method: Make, tmp_path: Path
) -> None:
    _, module = built(make_method, name, backbone)
    save_module(Store(tmp_path), "module.safetensors", module, Record.of("module", {}))
    wider = make_method(name).build(backbone, (CLIP_DIMS[0], CLIP_DIMS[1] + 8))
    with pytest.raises(CheckpointMismatch, match="24 there and 32 here"):
        load_module(Store(tmp_path), "module.safetensors", wider)
    with pytest.raises(DataError, match=r"there is no .*absent\.safetensors"):
        load_module(Store(tmp_path), "absent.safetensors", module)
    (tmp_path / "module.safetensors").write_bytes((tmp_path / "module.safetensors").read_bytes()[:-100])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        load_module(Store(tmp_path), "module.safetensors", module)


@every
def test_export(name: str, backbone: Backbone, make_method: Make, tmp_path: Path) -> None:
    method, module = built(make_method, name, backbone)
    adapter = method.personalize(module, backbone, [identity_of("ann", 1)])[0]
    record = method.export(adapter, str(tmp_path), "native", RECORD, backbone)
    loaded, stored = load_adapter(Store(tmp_path), "adapter")
    assert_same(loaded.tensors, adapter.tensors)
    assert stored == record
    with pytest.raises(UsageError, match=r"cannot export 'gguf'.*native"):
        method.export(adapter, str(tmp_path), "gguf", RECORD, backbone)


@every
def test_adapter_of_other_weights_is_refused(name: str, backbone: Backbone, make_method: Make) -> None:
    method, module = built(make_method, name, backbone)
    identity = identity_of("ann", 1)
    adapter = method.personalize(module, backbone, [identity])[0]
    adapter.meta["unet"] = "another"
    message = r"tuned (from|on) unet another, .* backbone that it was personalized with"
    with pytest.raises(CheckpointMismatch, match=message):
        image(method, module, backbone, adapter, identity)
