"""The new layers in the denoiser's blocks: exact where they start and where they end, and phi, which adds a bias."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.adapters.object_attention import ObjectAttention, ObjectAttentions
from e4t_core.backbones.base import Backbone
from tests.e4t.conftest import assert_same, rng, snapshot

WIDTH = 24


def attentions(backbone: Backbone, scale: float = 0.0, attend_null: bool = True) -> ObjectAttentions:
    made = ObjectAttentions(backbone.text_attentions(), WIDTH, attend_null, rng(1))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn(p.shape, generator=rng(2)) * scale)
    return made


def inputs(backbone: Backbone, size: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(size, *backbone.latent_shape, generator=rng(3))
    text = torch.randn(size, backbone.max_tokens, backbone.text_width, generator=rng(4))
    return x, torch.tensor([10, 500][:size]), text


def denoise(backbone: Backbone, layers: ObjectAttentions, seen: Tensor) -> Tensor:
    with layers.on(backbone.text_attentions()):
        layers.see(seen)
        return backbone.denoise(*inputs(backbone, len(seen)))


def test_sites_are_the_cross_attentions(backbone: Backbone) -> None:
    cross = [n.removesuffix(".to_q") for n, p in backbone.projections(("q",)).items() if p.attention == "cross"]
    sites = backbone.text_attentions()
    assert list(sites) == cross
    for name, site in sites.items():
        q = backbone.projections(("q",))[f"{name}.to_q"].module
        assert site.width == q.in_features
        assert site.width % site.heads == 0


def test_step_0_is_the_backbone_bit_for_bit(backbone: Backbone) -> None:
    with torch.no_grad():
        plain = backbone.denoise(*inputs(backbone))
        assert torch.equal(denoise(backbone, attentions(backbone), torch.randn(2, 1, WIDTH, generator=rng())), plain)


def test_off_again_the_backbone_is_itself(backbone: Backbone) -> None:
    before, hooks = snapshot(backbone), _hooks(backbone)
    with torch.no_grad():
        plain, layers = backbone.denoise(*inputs(backbone)), attentions(backbone, 0.05)
        with layers.on(backbone.text_attentions()):
            layers.see(torch.randn(2, 1, WIDTH, generator=rng()))
            assert not torch.equal(backbone.denoise(*inputs(backbone)), plain)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), layers.on(backbone.text_attentions()):
            denoise(backbone, layers, torch.zeros(2, 1, WIDTH + 1))
        assert torch.equal(backbone.denoise(*inputs(backbone)), plain)
    assert_same(before, snapshot(backbone))
    assert _hooks(backbone) == hooks


def _hooks(backbone: Backbone) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in backbone.modules())


def test_a_denoiser_that_was_shown_nothing_says_so(backbone: Backbone) -> None:
    layers = attentions(backbone)
    with layers.on(backbone.text_attentions()), pytest.raises(RuntimeError, match="no object was given"):
        backbone.denoise(*inputs(backbone))


def test_each_branch_adds_to_the_stream_after_the_text(backbone: Backbone) -> None:
    """``h'' = h' + W_out attn(W_q norm(h'), W_k [phi, o], W_v [phi, o]) + b``, computed by hand at one site."""
    layers, seen = attentions(backbone, 0.05), torch.randn(2, 1, WIDTH, generator=rng())
    name, site = list(backbone.text_attentions().items())[-1]
    layer: Any = layers.layers[name.replace(".", "/")]
    kept: dict[str, Tensor] = {}
    hooks = [
        site.norm.register_forward_pre_hook(lambda _m, args: kept.update(h=args[0])),
        site.attention.register_forward_hook(lambda _m, _a, out: kept.update(text=out)),
    ]
    with torch.no_grad(), layers.on(backbone.text_attentions()):
        hooks.append(site.attention.register_forward_hook(lambda _m, _a, out: kept.update(both=out)))
        layers.see(seen)
        backbone.denoise(*inputs(backbone))
        stream = kept["h"] + kept["text"]
        q = layer.to_q(layer.norm(stream))
        keys = torch.cat([torch.zeros(2, 1, WIDTH), seen], 1)
        k, v = layer.to_k(keys), layer.to_v(keys)
        heads = [part.chunk(site.heads, -1) for part in (q, k, v)]
        met = [torch.softmax(a @ b.mT / a.shape[-1] ** 0.5, -1) @ c for a, b, c in zip(*heads, strict=True)]
        expected = kept["text"] + layer.to_out(torch.cat(met, -1))
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(kept["both"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attend_null", [True, False])
def test_phi_adds_the_output_bias_and_nothing_else(attend_null: bool) -> None:
    layer = ObjectAttention(8, 2, WIDTH, attend_null, rng(), "cpu")
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=rng(5)))
    h = torch.randn(3, 5, 8, generator=rng(6))
    assert torch.equal(layer(h, torch.zeros(3, 1, WIDTH)), layer.to_out.bias.expand(3, 5, 8))
    assert not torch.equal(layer(h, torch.ones(3, 1, WIDTH)), layer.to_out.bias.expand(3, 5, 8))


def test_without_phi_among_the_keys_a_single_token_teaches_no_query() -> None:
    """Why phi is attended to by default: softmax over one number is 1."""
    for attend_null in (True, False):
        layer = ObjectAttention(8, 2, WIDTH, attend_null, rng(), "cpu")
        torch.nn.init.ones_(layer.to_out.weight)
        torch.nn.init.normal_(layer.to_out.weight, generator=rng(8))
        layer(torch.randn(1, 5, 8, generator=rng(6)), torch.randn(1, 1, WIDTH, generator=rng(7))).sum().backward()
        assert bool(layer.to_v.weight.grad.any())  # type: ignore[union-attr]
        assert (float(layer.to_q.weight.grad.abs().max()) > 1e-6) == attend_null  # type: ignore[union-attr]


def test_each_sample_sees_its_own_object(backbone: Backbone) -> None:
    layers, seen = attentions(backbone, 0.05), torch.randn(2, 1, WIDTH, generator=rng())
    with torch.no_grad():
        both = denoise(backbone, layers, seen)
        first = denoise(backbone, layers, torch.stack([seen[0], seen[0]]))
    torch.testing.assert_close(both[0], first[0])
    assert not torch.allclose(both[1], first[1])
