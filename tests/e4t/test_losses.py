"""Losses: what they compute, and that a batch is the mean of its samples."""

from __future__ import annotations

import pytest
import torch

from e4t_core.errors import DataError
from e4t_core.losses import diffusion_loss, embedding_l2, latent_mask
from tests.e4t.conftest import rng


def test_unmasked_is_mean_squared_error_per_sample() -> None:
    a, b = torch.randn(2, 3, 2, 4, 4, generator=rng())
    torch.testing.assert_close(diffusion_loss(a, b), ((a - b) ** 2).mean(dim=(1, 2, 3)))


def test_full_mask_equals_no_mask() -> None:
    a, b = torch.randn(2, 3, 2, 4, 4, generator=rng())
    torch.testing.assert_close(diffusion_loss(a, b, torch.ones(3, 1, 4, 4)), diffusion_loss(a, b))


def test_mask_weighs_and_normalises_per_sample() -> None:
    prediction, target = torch.zeros(2, 2, 2, 2), torch.zeros(2, 2, 2, 2)
    prediction[0, :, 0, 0] = 2.0
    prediction[1, :, 1, 1] = 4.0
    mask = torch.zeros(2, 1, 2, 2)
    mask[0, 0, 0] = torch.tensor([1.0, 1.0])
    mask[1, 0, 1, 1] = 0.5
    torch.testing.assert_close(diffusion_loss(prediction, target, mask), torch.tensor([2.0, 16.0]))


def test_outside_the_mask_there_is_no_gradient() -> None:
    prediction = torch.randn(1, 2, 4, 4, generator=rng()).requires_grad_()
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :] = 1
    diffusion_loss(prediction, torch.zeros(1, 2, 4, 4), mask).sum().backward()
    assert prediction.grad[..., :2, :].all()
    assert not prediction.grad[..., 2:, :].any()


def test_half_precision_is_summed_in_float32() -> None:
    a = torch.full((1, 1, 64, 64), 300.0, dtype=torch.float16)
    assert diffusion_loss(a, torch.zeros_like(a)).item() == 90_000.0


@pytest.mark.parametrize("masked", [False, True])
def test_batch_is_the_mean_of_batches_of_one(masked: bool) -> None:
    a, b = torch.randn(2, 5, 2, 4, 4, generator=rng())
    mask = torch.rand(5, 1, 4, 4, generator=rng(1)) if masked else None
    whole = diffusion_loss(a, b, mask).mean()
    alone = [diffusion_loss(a[i : i + 1], b[i : i + 1], None if mask is None else mask[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(whole, torch.stack(alone).mean())


def test_latent_mask_is_the_foreground_share() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :3, :] = 1
    torch.testing.assert_close(latent_mask(mask, (2, 2))[0, 0], torch.tensor([[0.75, 0.75], [0.0, 0.0]]))


def test_empty_mask_is_named() -> None:
    mask = torch.ones(3, 1, 8, 8)
    mask[1] = 0
    with pytest.raises(DataError, match=r"samples \[1\] in a batch of 3 have no foreground"):
        latent_mask(mask, (2, 2))


def test_embedding_l2_is_a_sum_of_squares_per_sample() -> None:
    torch.testing.assert_close(embedding_l2(torch.tensor([[3.0, 4.0], [0.0, 1.0]])), torch.tensor([25.0, 1.0]))
