"""The order of training: every row once an epoch, parts by their shares, any position from itself alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from e4t_core.errors import DataError, UsageError
from pipelines.order import ROUND, Shared, Shuffled, quotas

PARTS = {"faces": np.arange(0, 7), "general": np.arange(7, 40), "pets": np.arange(40, 45)}
SHARES = {"faces": 0.7, "general": 0.25, "pets": 0.05}


def part_of(row: int) -> str:
    return next(name for name, rows in PARTS.items() if row in rows)


def test_an_epoch_has_every_row_once_and_the_next_another_order() -> None:
    order = Shuffled(11, 3)
    epochs = [[order(at) for at in range(e * 11, e * 11 + 11)] for e in range(3)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_every_round_holds_the_shares_exactly() -> None:
    order = Shared(PARTS, SHARES, 0)
    for start in (0, ROUND, 5 * ROUND):
        drawn = Counter(part_of(order(at)) for at in range(start, start + ROUND))
        assert drawn == {"faces": 700, "general": 250, "pets": 50}


def test_each_part_goes_through_its_rows_evenly_whatever_its_share() -> None:
    order = Shared(PARTS, SHARES, 0)
    drawn = [order(at) for at in range(2 * ROUND)]
    for name, rows in PARTS.items():
        mine = [row for row in drawn if part_of(row) == name]
        for start in range(0, len(mine) - len(rows) + 1, len(rows)):
            assert sorted(mine[start : start + len(rows)]) == rows.tolist()


def test_parts_are_mixed_within_a_batch() -> None:
    order = Shared(PARTS, {"faces": 0.5, "general": 0.5, "pets": 0}, 0)
    batches = [{part_of(order(at)) for at in range(b * 16, b * 16 + 16)} for b in range(20)]
    assert batches == [{"faces", "general"}] * 20


def test_a_position_says_all_there_is_to_know() -> None:
    order, again = Shared(PARTS, SHARES, 4), Shared(PARTS, SHARES, 4)
    straight = [order(at) for at in range(3 * ROUND)]
    assert [again(at) for at in reversed(range(3 * ROUND))] == straight[::-1]
    assert [Shared(PARTS, SHARES, 5)(at) for at in range(50)] != straight[:50]


def test_a_share_of_nothing_leaves_a_part_out_even_if_it_is_empty() -> None:
    order = Shared({**PARTS, "none": np.arange(0)}, {"faces": 2, "general": 0, "pets": 2, "none": 0}, 0)
    assert Counter(part_of(order(at)) for at in range(ROUND)) == {"faces": 500, "pets": 500}


@pytest.mark.parametrize(
    ("shares", "expected"),
    [([1], (1000,)), ([1, 1, 1], (334, 333, 333)), ([2, 0.5], (800, 200)), ([0.9996, 0.0004], (1000, 0))],
)
def test_quotas_are_the_nearest_whole_numbers(shares: list[float], expected: tuple[int, ...]) -> None:
    assert quotas(shares) == expected


def test_shares_that_do_not_fit_the_parts_are_refused() -> None:
    with pytest.raises(UsageError, match="no share for part 'pets'"):
        Shared(PARTS, {"faces": 1, "general": 1}, 0)
    with pytest.raises(DataError, match="part 'art' has a share but no samples"):
        Shared(PARTS, {**SHARES, "art": 0.1}, 0)
    with pytest.raises(UsageError, match=r"share of part 'pets' is 0\.0001; less than 1 in 1000"):
        Shared(PARTS, {**SHARES, "pets": 0.0001}, 0)
