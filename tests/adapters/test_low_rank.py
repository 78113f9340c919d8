"""Low-rank changes on a backbone: the fast form for training, the general one, and merged weights are one thing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from e4t_core.adapters.lidb import lidb_projections
from e4t_core.adapters.low_rank import LowRank, low_rank_in_runs, low_rank_per_sample, merged
from e4t_core.adapters.modulation import Factors, modulated_per_sample
from e4t_core.backbones.base import Backbone
from tests.e4t.conftest import assert_same, rng, snapshot


def drawn(backbone: Backbone, identities: int, rank: int) -> dict[str, LowRank]:
    g = rng(2)
    return {
        name: LowRank(
            0.15 * torch.randn(identities, p.module.out_features, rank, generator=g),
            0.15 * torch.randn(identities, rank, p.module.in_features, generator=g),
        )
        for name, p in lidb_projections(backbone).items()
    }


def predicted(backbone: Backbone, samples: int) -> Tensor:
    x = torch.randn(samples, *backbone.latent_shape, generator=rng(1))
    text = backbone.encode_text(backbone.tokenize(["a photo of a person"]).expand(samples, -1))
    return backbone.denoise(x, torch.full((samples,), 500), text)


@pytest.mark.parametrize("rank", [1, 4])
def test_runs_and_any_order_and_merged_weights_compute_the_same(backbone: Backbone, rank: int) -> None:
    layers, weights = lidb_projections(backbone), drawn(backbone, 2, rank)
    with low_rank_in_runs(layers, weights):
        runs = predicted(backbone, 4)
    with low_rank_per_sample(layers, weights, torch.tensor([0, 0, 1, 1])):
        torch.testing.assert_close(predicted(backbone, 4), runs, atol=2e-5, rtol=1e-4)
    before = snapshot(backbone)
    for k in range(2):
        with merged(layers, weights, k):
            torch.testing.assert_close(predicted(backbone, 4)[2 * k :][:2], runs[2 * k :][:2], atol=2e-5, rtol=1e-4)
    assert_same(before, snapshot(backbone))
    assert (predicted(backbone, 4) - runs).abs().max() > 1e-2


def test_gradients_of_runs_are_those_of_any_order(backbone: Backbone) -> None:
    layers = lidb_projections(backbone)

    def gradients(which: Tensor | None) -> list[Tensor]:
        weights = drawn(backbone, 2, 1)
        leaves = [t.requires_grad_() for one in weights.values() for t in (one.up, one.down)]
        inside = low_rank_in_runs(layers, weights) if which is None else low_rank_per_sample(layers, weights, which)
        with inside:
            loss = predicted(backbone, 4).square().mean()
        return list(torch.autograd.grad(loss, leaves))

    pairs = zip(gradients(None), gradients(torch.tensor([0, 0, 1, 1])), strict=True)
    assert all((a - b).norm() <= 1e-4 * b.norm() for a, b in pairs)


def test_a_batch_that_is_no_multiple_of_the_identities_is_refused(backbone: Backbone) -> None:
    with (
        low_rank_in_runs(lidb_projections(backbone), drawn(backbone, 2, 1)),
        pytest.raises(ValueError, match="a batch of 3 does not hold as many samples of each of 2 identities"),
    ):
        predicted(backbone, 3)


def test_offsets_of_e4t_serve_many_identities_in_one_batch(backbone: Backbone) -> None:
    """Compact rank-3 factors of K identities, and samples that choose among them, also in a doubled batch."""
    layers, g = backbone.projections(), rng(3)
    factors = {
        name: Factors(
            torch.randn(2, 3, p.module.out_features, generator=g), torch.randn(2, 3, p.module.in_features, generator=g)
        )
        for name, p in layers.items()
    }
    which = torch.tensor([1, 0, 1])

    def each(one: Mapping[str, Factors], index: Tensor | None, samples: Tensor) -> Tensor:
        x = torch.randn(3, *backbone.latent_shape, generator=rng(1))[samples]
        with modulated_per_sample(layers, one, index):
            return backbone.denoise(x, torch.full((len(x),), 500), text[:1].expand(len(x), -1, -1))

    text = backbone.encode_text(backbone.tokenize(["a face"]))
    together = each(factors, which, torch.arange(3))
    for k in range(2):
        alone = {name: Factors(one.u[k : k + 1], one.v[k : k + 1]) for name, one in factors.items()}
        rows = (which == k).nonzero().flatten()
        torch.testing.assert_close(together[rows], each(alone, None, rows), atol=1e-4, rtol=1e-4)
    doubled = each(factors, which, torch.arange(3).repeat(2))
    torch.testing.assert_close(doubled, together.repeat(2, 1, 1, 1), atol=1e-4, rtol=1e-4)
