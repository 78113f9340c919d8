"""Eq. 5: what two paths give at both ends of the blend, between them, and under guidance."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from e4t_core.adapters.dual_path import ConceptWeights, DualPathConfig, dual_path
from e4t_core.adapters.low_rank import low_rank_in_runs, merged
from e4t_core.backbones.base import Backbone
from e4t_core.methods import Adapter
from e4t_core.sampling import SamplerConfig, TextConditioning, sample
from tests.domain_agnostic.conftest import Make, built, short
from tests.e4t.conftest import identity_of, rng

PER = ["attention", "block"]
WORD = "cat"


def weights_of(backbone: Backbone, per: Any = "attention", blend: float = 0.25) -> ConceptWeights:
    return ConceptWeights(backbone, 2, None, DualPathConfig(blend=blend, per=per), "face")


def drawn(weights: ConceptWeights, people: int = 2) -> Tensor:
    flat = weights.flat(weights.initial(list(range(people))))
    return flat + 0.1 * torch.randn(flat.shape, generator=rng(2))


def noisy(backbone: Backbone, count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, *backbone.latent_shape, generator=rng(1)), torch.arange(100, 100 + count)


def hard_of(backbone: Backbone, people: int) -> dict[str, Tensor]:
    return {"hard": backbone.token_embedding(WORD).expand(people, -1)}


def prediction(backbone: Backbone, weights: ConceptWeights, flat: Tensor, each: int = 2) -> Tensor:
    """``each`` samples of every identity in ``flat``."""
    constants = hard_of(backbone, len(flat)) if weights.dual else {}
    x, t = noisy(backbone, each * len(flat))
    ids = backbone.tokenize([f"a photo of {backbone.placeholder}"]).expand(len(x), -1)
    spliced = [weights.spliced(flat), weights.companions(constants)]
    text = torch.cat(
        [backbone.encode_text(ids, one.repeat_interleave(each, dim=0)) for one in spliced if one is not None]
    )
    with weights.on(flat, constants):
        return backbone.denoise(x, t, text)


def on_the_hard_prompt(backbone: Backbone, count: int) -> Tensor:
    x, t = noisy(backbone, count)
    return backbone.denoise(x, t, backbone.encode_text(backbone.tokenize([f"a photo of {WORD}"])).expand(count, -1, -1))


@pytest.mark.parametrize("per", PER)
def test_alpha_0_is_the_untouched_model_on_the_hard_prompt(backbone: Backbone, per: str) -> None:
    weights = weights_of(backbone, per, blend=0.0)
    found = prediction(backbone, weights, drawn(weights))
    torch.testing.assert_close(found, on_the_hard_prompt(backbone, 4), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("per", PER)
def test_alpha_1_is_the_modulated_model(backbone: Backbone, per: str) -> None:
    weights, one_path = weights_of(backbone, per, blend=1.0), weights_of(backbone, "none")
    flat = drawn(weights)
    found = prediction(backbone, weights, flat)
    torch.testing.assert_close(found, prediction(backbone, one_path, flat), rtol=1e-6, atol=1e-6)
    assert (found - on_the_hard_prompt(backbone, 4)).abs().max() > 1e-2


@pytest.mark.parametrize("per", PER)
def test_in_between_every_site_gives_the_blend_of_both_paths(backbone: Backbone, per: Any) -> None:
    """Each site is run by hand on the very feature map that it got: with the identity's weights merged and C, and
    untouched with C_h."""
    weights = weights_of(backbone, per)
    flat, seen = drawn(weights, 1), []
    constants = hard_of(backbone, 1)

    def keep(site: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        first = out[0] if isinstance(out, tuple) else out
        seen.append((site, args[0], kwargs, first))

    ids = backbone.tokenize([f"a photo of {backbone.placeholder}"])
    soft, hard = (backbone.encode_text(ids, one) for one in (weights.spliced(flat), constants["hard"]))
    x, t = noisy(backbone, 1)
    with weights.on(flat, constants), contextlib.ExitStack() as hooks:
        for site in weights.sites.values():  # after those of the dual path: they see what it gives
            hooks.callback(site.register_forward_hook(keep, with_kwargs=True).remove)
        backbone.denoise(x, t, torch.cat([soft, hard]))
    assert len(seen) == len(weights.sites) > 1

    def alone(site: nn.Module, f: Tensor, kwargs: Any, text: Tensor) -> Tensor:
        given = dict(kwargs)
        if given.get("encoder_hidden_states") is not None:
            given["encoder_hidden_states"] = text
        out = site(f, **given)
        return out[0] if isinstance(out, tuple) else out

    lora = weights.lora.low_rank(flat[:, : weights.lora.numbers], {})
    for site, doubled, kwargs, found in seen:
        f = doubled[: len(doubled) // 2]
        torch.testing.assert_close(doubled[len(f) :], f, rtol=0, atol=0)  # both paths have one feature map
        with merged(weights.lora.projections, lora):
            modulated = alone(site, f, kwargs, soft)
        expected = 0.25 * modulated + 0.75 * alone(site, f, kwargs, hard)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_convolutions_run_once_and_attention_twice(backbone: Backbone) -> None:
    batches: dict[str, set[int]] = {"Conv2d": set(), "to_q": set()}
    hooks = contextlib.ExitStack()
    for name, module in backbone.named_modules():
        kind = "to_q" if name.endswith("to_q") else type(module).__name__
        if name.startswith("unet") and kind in batches:
            hooks.callback(
                module.register_forward_hook(lambda _m, args, _o, kind=kind: batches[kind].add(len(args[0]))).remove
            )
    weights = weights_of(backbone)
    with hooks:
        prediction(backbone, weights, drawn(weights))
    assert batches == {"Conv2d": {4}, "to_q": {8}}


def test_equal_paths_come_out_bit_for_bit() -> None:
    site = nn.Identity()
    f = torch.randn(3, 5, 7, generator=rng())
    for alpha in (0.0, 0.25, 0.7, 1.0):
        with dual_path({"a": site}, alpha):
            assert torch.equal(site(f), f)
    assert torch.equal(site(f), f)


def test_samples_by_number_are_the_same_as_in_runs(backbone: Backbone) -> None:
    weights = weights_of(backbone)
    flat, constants = drawn(weights), hard_of(backbone, 2)
    runs = prediction(backbone, weights, flat)
    x, t = noisy(backbone, 4)
    ids = backbone.tokenize([f"a photo of {backbone.placeholder}"]).expand(4, -1)
    which = torch.tensor([0, 0, 1, 1])
    text = torch.cat([backbone.encode_text(ids, one[which]) for one in (weights.spliced(flat), constants["hard"])])
    with weights.on(flat, constants, which):
        torch.testing.assert_close(backbone.denoise(x, t, text), runs, rtol=1e-4, atol=1e-5)


def test_gradients_reach_an_identitys_own_numbers_alone(backbone: Backbone) -> None:
    weights = weights_of(backbone)
    leaf = drawn(weights).requires_grad_()
    prediction(backbone, weights, leaf)[:2].square().sum().backward()
    assert leaf.grad is not None
    assert not leaf.grad[1].any()
    silent = [name for name, g in weights.unflat(leaf.grad).items() if not g[0].any()]
    assert not silent


def test_only_the_first_part_of_a_batch_has_the_weights(backbone: Backbone) -> None:
    weights = weights_of(backbone)
    lora = weights.lora.low_rank(drawn(weights)[:, : weights.lora.numbers], {})
    name, projection = next(iter(weights.lora.projections.items()))
    x = torch.randn(8, 3, projection.module.in_features, generator=rng())
    plain = projection.module(x)
    with low_rank_in_runs({name: projection}, {name: lora[name]}):
        whole = projection.module(x[:4])
    with low_rank_in_runs({name: projection}, {name: lora[name]}, parts=2):
        found = projection.module(x)
    torch.testing.assert_close(found[:4], whole)
    assert torch.equal(found[4:], plain[4:])


# --- sampling


def image(make: Make, backbone: Backbone, adapter: Adapter, guidance: float, **fields: Any) -> Tensor:
    method = make(**fields)
    prompts = [f"a photo of {backbone.placeholder}", f"{backbone.placeholder} at night"]
    conditioning = method.conditioning(built(method, backbone), backbone, adapter, identity_of("ann", 1), prompts)
    return sample(backbone, conditioning, SamplerConfig(steps=2, guidance=guidance, negative_prompt="a dog"), [1, 2])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_both_ends_in_the_one_sampler(backbone: Backbone, make_method: Make, guidance: float) -> None:
    """Negative prompt and all: alpha 0 is the plain sampler's picture, alpha 1 that of one path."""
    weights, method = weights_of(backbone), make_method(personalize=short(steps=0))
    adapter = method.personalize(built(method, backbone), backbone, [identity_of("ann", 1)])[0]
    for name, tensor in weights.unflat(drawn(weights, 1)).items():
        adapter.tensors[name if name == "token" else f"lora.{name}"] = tensor[0]
    word = int(backbone.tokenize([WORD])[0, 1])
    adapter.meta["hard"] = word
    ends = [image(make_method, backbone, adapter, guidance, dual_path=DualPathConfig(blend=b)) for b in (0.0, 0.5, 1.0)]
    plain = TextConditioning(backbone, [f"a photo of {WORD}", f"{WORD} at night"])
    expected = sample(backbone, plain, SamplerConfig(steps=2, guidance=guidance, negative_prompt="a dog"), [1, 2])
    torch.testing.assert_close(ends[0], expected, rtol=1e-5, atol=1e-5)
    one_path = image(make_method, backbone, adapter, guidance, dual_path=DualPathConfig(per="none"))
    torch.testing.assert_close(ends[2], one_path, rtol=1e-5, atol=1e-5)
    assert min((ends[1] - end).abs().max() for end in (ends[0], ends[2])) > 1e-3
