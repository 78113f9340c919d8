"""LiDB weights: how many, where, what they compute, and that identities do not mix."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from e4t_core.adapters.borrowed import shifted
from e4t_core.adapters.lidb import LiDBConfig, Space, lidb_projections
from e4t_core.adapters.low_rank import LowRank, low_rank_per_sample
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.errors import CheckpointMismatch

CONFIG = LiDBConfig(a=12, b=6, seed=4)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(space: Space, identities: int, seed: int = 0) -> dict[str, Tensor]:
    """Weights that change something, in every layer."""
    start, generator = space.initial(identities), rng(seed)
    return {n: t + 0.5 * torch.randn(t.shape, generator=generator) for n, t in start.items()}


def predicted(backbone: Backbone, which: Tensor, weights: Mapping[str, LowRank], repeats: int = 1) -> Tensor:
    """What the denoiser says with the text encoder's and its own layers personalized."""
    count = len(which)
    x = torch.randn(count, *backbone.latent_shape, generator=rng(1)).repeat(repeats, 1, 1, 1)
    ids = backbone.tokenize(["a photo of a person"] * count * repeats)
    with low_rank_per_sample(lidb_projections(backbone), weights, which):
        text = backbone.encode_text(ids)
        return backbone.denoise(x, torch.full((count * repeats,), 500), text)


def test_the_papers_numbers() -> None:
    space = Space.of(StableDiffusionBackbone.from_config("sd15"), LiDBConfig())
    assert len(space.shapes) == 192
    assert space.numbers == 28_800
    assert sum(m + n for m, n in space.shapes.values()) == 385_344


def test_a_small_layer_has_as_many_numbers_as_it_can_use(backbone: Backbone) -> None:
    space = Space.of(backbone, LiDBConfig())
    for name, (outputs, inputs) in space.shapes.items():
        a, b = space.sizes(name)
        assert (a, b) == (min(100, outputs), min(50, inputs))
        up, down = space.bases[name]
        assert (up.shape, down.shape) == ((outputs, a), (b, inputs))
        torch.testing.assert_close(up.mT @ up, torch.eye(a), atol=1e-5, rtol=0)
        torch.testing.assert_close(down @ down.mT, torch.eye(b), atol=1e-5, rtol=0)


def test_at_the_start_nothing_is_changed_and_everybody_is_the_same(backbone: Backbone) -> None:
    space = Space.of(backbone, CONFIG)
    start = space.initial(3)
    assert all(torch.equal(t[0], t[1]) and torch.equal(t[0], t[2]) for t in start.values())
    assert all((t == 0).all() == name.endswith("B_train") for name, t in start.items())
    assert torch.equal(
        start["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.A_train"][0].isfinite().all(),
        torch.tensor(True),
    )
    which = torch.tensor([0, 2, 1])
    plain = predicted(backbone, which, {})
    torch.testing.assert_close(predicted(backbone, which, space.expand(start)), plain, atol=0, rtol=0)


def test_each_sample_computes_with_its_own_identitys_weights(backbone: Backbone) -> None:
    space = Space.of(backbone, CONFIG)
    weights, which = space.expand(drawn(space, 3)), torch.tensor([2, 0, 2, 1])
    together = predicted(backbone, which, weights)
    parameters = {f"{name}": p.module.weight for name, p in lidb_projections(backbone).items()}
    for k in range(3):
        with shifted(parameters, {name: w.matrix()[k] for name, w in weights.items()}):
            merged = predicted(backbone, which, {})
        rows = which == k
        torch.testing.assert_close(together[rows], merged[rows], atol=2e-5, rtol=1e-4)
    assert (together - predicted(backbone, which, {})).abs().max() > 1e-2


def test_a_doubled_batch_repeats_the_identities(backbone: Backbone) -> None:
    space = Space.of(backbone, CONFIG)
    weights, which = space.expand(drawn(space, 2)), torch.tensor([1, 0])
    one, two = predicted(backbone, which, weights), predicted(backbone, which, weights, repeats=2)
    torch.testing.assert_close(two, torch.cat([one, one]), atol=1e-5, rtol=1e-4)


def test_an_identitys_gradient_comes_from_its_own_samples_alone(backbone: Backbone) -> None:
    space = Space.of(backbone, CONFIG)

    def gradients(which: Tensor, keep: Tensor) -> dict[str, Tensor]:
        leaves = {n: t.requires_grad_() for n, t in drawn(space, 2).items()}
        predicted(backbone, which, space.expand(leaves))[keep].square().sum().backward()
        return {n: t.grad for n, t in leaves.items() if t.grad is not None}

    both = gradients(torch.tensor([0, 1, 0]), torch.tensor([True, True, True]))
    other = gradients(torch.tensor([0, 1, 0]), torch.tensor([False, True, False]))
    for name, gradient in both.items():
        torch.testing.assert_close(gradient[1], other[name][1], atol=1e-6, rtol=1e-5)
        assert not other[name][0].any()


def test_sums_are_exact_concatenations(backbone: Backbone) -> None:
    generator = rng(3)
    one, two = (
        LowRank(torch.randn(2, 5, r, generator=generator), torch.randn(2, r, 4, generator=generator)) for r in (1, 3)
    )
    both = one + two
    assert both.up.shape == (2, 5, 4)
    torch.testing.assert_close(both.matrix(), one.matrix() + two.matrix())


def test_weights_of_other_bases_are_refused(backbone: Backbone) -> None:
    space, other = Space.of(backbone, CONFIG), Space.of(backbone, LiDBConfig(a=12, b=6, seed=5))
    space.check(space.checksum, "a file")
    with pytest.raises(CheckpointMismatch, match="a file was made in other LiDB bases"):
        space.check(other.checksum, "a file")


def test_the_flat_form_is_layer_by_layer_and_goes_back(backbone: Backbone) -> None:
    space = Space.of(backbone, CONFIG)
    weights = drawn(space, 2)
    flat = space.flat(weights)
    assert flat.shape == (2, space.numbers)
    first = next(iter(space.shapes))
    a, b = space.sizes(first)
    assert torch.equal(flat[:, :a], weights[f"{first}.A_train"])
    assert torch.equal(flat[:, a : a + b], weights[f"{first}.B_train"])
    assert all(torch.equal(t, weights[name]) for name, t in space.unflat(flat).items())
    assert torch.equal(space.flat({name: t[0] for name, t in weights.items()}), flat[0])
    with pytest.raises(CheckpointMismatch, match=f"of 7 numbers do not fit: .* have {space.numbers}"):
        space.unflat(torch.zeros(2, 7))


def test_expansion_is_the_product_of_the_four_matrices(backbone: Backbone) -> None:
    space = Space.of(backbone, CONFIG)
    weights = drawn(space, 2)
    for name, one in space.expand(weights).items():
        A_aux, B_aux = space.bases[name]
        A, B = weights[f"{name}.A_train"][1], weights[f"{name}.B_train"][1]
        torch.testing.assert_close(one.matrix()[1], A_aux @ torch.outer(A, B) @ B_aux, atol=1e-5, rtol=1e-4)
