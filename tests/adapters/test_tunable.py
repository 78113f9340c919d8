"""What an identity may have of its own: sizes, starts, and what the backbone computes with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from e4t_core.adapters.lidb import LiDBConfig, Space, lidb_projections
from e4t_core.adapters.low_rank import merged
from e4t_core.adapters.tunable import LiDBWeights, LoRAWeights, TokenWeights, Tunable
from e4t_core.backbones.base import Backbone
from e4t_core.errors import CheckpointMismatch
from tests.e4t.conftest import rng


def tunables(backbone: Backbone) -> dict[str, Tunable]:
    layers = lidb_projections(backbone)
    return {
        "lidb": LiDBWeights(backbone, Space.of(backbone, LiDBConfig(a=12, b=6))),
        "lora 1": LoRAWeights(layers, 1),
        "lora 4": LoRAWeights(layers, 4, alpha=8.0),
        "token": TokenWeights(backbone, "face"),
    }


NAMES = ["lidb", "lora 1", "lora 4", "token"]


def predicted(backbone: Backbone, tunable: Tunable | None, flat: Tensor, which: Tensor | None = None) -> Tensor:
    """Two samples of each row of ``flat``, or the samples that ``which`` names."""
    count = 2 * len(flat) if which is None else len(which)
    x = torch.randn(count, *backbone.latent_shape, generator=rng(1))
    ids = backbone.tokenize([f"a photo of {backbone.placeholder if tunable is not None else 'face'}"])
    each = torch.arange(len(flat)).repeat_interleave(2) if which is None else which
    if tunable is None:
        return backbone.denoise(x, torch.full((count,), 400), backbone.encode_text(ids.expand(count, -1)))
    spliced = tunable.spliced(flat)
    if spliced is None:
        spliced = backbone.token_embedding("face").expand(len(flat), -1)
    with tunable.on(flat, {}, which):
        text = backbone.encode_text(ids.expand(count, -1), spliced[each])
        return backbone.denoise(x, torch.full((count,), 400), text)


@pytest.mark.parametrize("name", NAMES)
def test_at_its_start_it_changes_nothing(backbone: Backbone, name: str) -> None:
    tunable = tunables(backbone)[name]
    start = tunable.initial([3, 4])
    assert {n: tuple(t.shape[1:]) for n, t in start.items()} == dict(tunable.shapes)
    flat = tunable.flat(start)
    assert flat.shape == (2, tunable.numbers)
    assert all(torch.equal(t, start[n]) for n, t in tunable.unflat(flat).items())
    plain = predicted(backbone, None, flat)
    torch.testing.assert_close(predicted(backbone, tunable, flat), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_samples_in_runs_or_by_number_are_the_same(backbone: Backbone, name: str) -> None:
    tunable = tunables(backbone)[name]
    flat = tunable.flat(tunable.initial([3, 4]))
    flat = flat + 0.1 * torch.randn(flat.shape, generator=rng(5))
    runs = predicted(backbone, tunable, flat)
    torch.testing.assert_close(
        predicted(backbone, tunable, flat, torch.tensor([0, 0, 1, 1])), runs, atol=1e-4, rtol=1e-4
    )
    assert (runs - predicted(backbone, None, flat)).abs().max() > 1e-3


def test_lora_starts_where_its_seed_says_and_company_changes_nothing(backbone: Backbone) -> None:
    tunable = tunables(backbone)["lora 4"]
    both, alone = tunable.initial([3, 4]), tunable.initial([4])
    for name, start in both.items():
        assert torch.equal(start[1], alone[name][0])
        if name.endswith(".up"):
            assert not start.any()
        else:
            assert not torch.equal(start[0], start[1])
            assert start.abs().max() <= start.shape[-1] ** -0.5
            assert start.std() == pytest.approx((start.shape[-1] * 3) ** -0.5, rel=0.2)


def test_lora_on_a_frozen_base_has_the_exact_sum_of_ranks(backbone: Backbone) -> None:
    layers = backbone.projections(("q", "k"))
    tunable, g = LoRAWeights(layers, 3, alpha=6.0, base_rank=1), rng(0)
    flat = torch.randn(2, tunable.numbers, generator=g)
    base = {name: torch.randn(2, *shape, generator=g) for name, shape in tunable.constant_shapes.items()}
    trained = tunable.unflat(flat)
    for name, one in tunable.low_rank(flat, base).items():
        assert one.up.shape[2] == 4
        expected = 2.0 * trained[f"{name}.up"] @ trained[f"{name}.down"] + base[f"{name}.up"] @ base[f"{name}.down"]
        torch.testing.assert_close(one.matrix(), expected, atol=1e-4, rtol=1e-5)
    start = tunable.flat(tunable.initial([0, 1]))
    one_prompt = backbone.encode_text(backbone.tokenize(["a face"]))

    def denoised() -> Tensor:
        x = torch.randn(2, *backbone.latent_shape, generator=rng(1))
        return backbone.denoise(x, torch.tensor([300, 300]), one_prompt.expand(2, -1, -1))

    small = {name: 0.1 * t for name, t in base.items()}
    with tunable.on(start, small):
        based = denoised()
    for k in range(2):
        with merged(layers, tunable.low_rank(start, small), k):
            torch.testing.assert_close(denoised()[k], based[k], atol=1e-4, rtol=1e-4)


def test_weights_with_other_names_or_shapes_are_refused(backbone: Backbone) -> None:
    tunable = tunables(backbone)["token"]
    with pytest.raises(CheckpointMismatch, match="token is missing there"):
        tunable.flat({})
    with pytest.raises(CheckpointMismatch, match=r"token is \(3,\) there and \(\d+,\) here"):
        tunable.flat({"token": torch.zeros(1, 3)})
    with pytest.raises(CheckpointMismatch, match="more is"):
        tunable.flat({**tunable.initial([0]), "more": torch.zeros(1, 3)})
