"""Random numbers of many identities at once: nobody's depend on who else is there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from e4t_core.adapters.streams import as_seeds, integers, normals, uniforms

SEEDS = as_seeds([5, 0, -3, 2**63 + 11, 6])
STEPS = torch.tensor([0, 7, 0, 1, 0])
DRAWS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "uniforms": lambda seeds, steps: uniforms(seeds, steps, 2, (3, 5)),
    "normals": lambda seeds, steps: normals(seeds, steps, 2, (3, 5)),
    "integers": lambda seeds, steps: integers(seeds, steps, 2, (3, 5), 1000),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_alone_together_and_in_any_order_they_are_the_same(draw: Callable[[Tensor, Tensor], Tensor]) -> None:
    together = draw(SEEDS, STEPS)
    assert together.shape == (5, 3, 5)
    order = torch.tensor([3, 0, 4])
    assert torch.equal(draw(SEEDS[order], STEPS[order]), together[order])
    for k in range(5):
        assert torch.equal(draw(SEEDS[k : k + 1], STEPS[k : k + 1])[0], together[k])


def test_the_numbers_are_these_for_ever() -> None:
    """Targets that were tuned once are compared with others that are tuned years later."""
    one, zero = as_seeds([42]), torch.tensor([0])
    torch.testing.assert_close(uniforms(one, zero, 0, (3,))[0], torch.tensor(PINNED, dtype=torch.float64))
    assert integers(one, zero, 0, (3,), 1000).tolist() == [[int(1000 * (1 - u)) for u in PINNED]]


PINNED = [0.386974276240041, 0.9213172250065325, 0.0831163410551613]


def test_a_uniform_is_splitmix64() -> None:
    """The words are SplitMix64's: its published first outputs for seed 1234567 come out of the same finalizer."""
    from e4t_core.adapters.streams import _GOLDEN, _mixed, _signed

    states = torch.tensor([_signed(1234567 + n * _GOLDEN) for n in (1, 2, 3)])
    assert [word % 2**64 for word in _mixed(states).tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_they_are_uniform_and_normal() -> None:
    seeds, steps = as_seeds(range(40)), torch.arange(40) % 3
    unit = uniforms(seeds, steps, 1, (5001,))
    assert unit.min() > 0
    assert unit.max() <= 1
    assert unit.mean() == pytest.approx(0.5, abs=0.003)
    assert (unit * 10).long().clamp(max=9).flatten().bincount().float().std() / 20004 < 0.02
    drawn = normals(seeds, steps, 1, (5001,))
    assert drawn.dtype == torch.float32
    assert drawn.mean() == pytest.approx(0, abs=0.01)
    assert drawn.std() == pytest.approx(1, abs=0.01)
    assert drawn.pow(4).mean() == pytest.approx(3, abs=0.06)


def test_seed_step_and_stream_each_give_numbers_of_their_own() -> None:
    """Neighbours are not correlated either: 0.03 is more than four standard deviations of 20,000 pairs."""

    def drawn(seed: int, step: int, stream: int) -> Tensor:
        return normals(as_seeds([seed]), torch.tensor([step]), stream, (20_000,))[0]

    sets = [drawn(1, 1, 1), drawn(2, 1, 1), drawn(1, 2, 1), drawn(1, 1, 2), drawn(2, 0, 1), drawn(1, 0, 257 % 256)]
    correlation = torch.corrcoef(torch.stack([*sets, sets[0].roll(1), sets[0].roll(10_000)]))
    assert (correlation - torch.eye(len(correlation))).abs().max() < 0.03


def test_integers_reach_every_value_below_each_identitys_own_bound() -> None:
    high = torch.tensor([1, 2, 7, 3, 1000])
    drawn = integers(SEEDS, STEPS, 0, (9000,), high)
    assert drawn.min(dim=1).values.tolist() == [0] * 5
    assert drawn.max(dim=1).values.tolist() == [0, 1, 6, 2, 999]
