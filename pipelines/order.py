"""The order in which training draws samples: one endless sequence, the same for any number of ranks and threads.

Any position of it is computed from (seed, position) alone, so a run resumes at the exact sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from e4t_core.errors import DataError, UsageError

ROUND = 1000
"""Draws within which shares are exact, to the nearest draw."""


class Order(Protocol):
    """Position -> row."""

    def __call__(self, at: int) -> int:
        """The row at position ``at``."""


class Shuffled:
    """Epoch after epoch, each a permutation drawn from (seed, epoch)."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows, self.seed = rows, seed

    def __call__(self, at: int) -> int:
        epoch, offset = divmod(at, self.rows)
        return int(_permutation((self.seed, epoch), self.rows)[offset])


class Shared:
    """Parts drawn by share: each goes through its own epochs, and every ``ROUND`` draws hold the shares exactly.

    Args:
        parts: name -> its rows.
        shares: name -> its share, relative to the others'; 0 leaves a part out.
        seed: of the order.

    Raises:
        UsageError: shares and parts do not name the same, or a share is too small for ``ROUND`` draws.
        DataError: a part to be drawn from has no rows.
    """

    def __init__(self, parts: Mapping[str, np.ndarray], shares: Mapping[str, float], seed: int) -> None:
        if missing := sorted(set(parts) - set(shares)):
            raise UsageError(f"no share for part '{missing[0]}'; shares name {', '.join(shares)}")
        if empty := [name for name, share in shares.items() if share and not len(parts.get(name, ()))]:
            raise DataError(f"part '{empty[0]}' has a share but no samples; the parts with samples: {', '.join(parts)}")
        drawn = [name for name, share in shares.items() if share]
        self.seed = seed
        self._rows = [parts[name] for name in drawn]
        self._quota = quotas([shares[name] for name in drawn])
        for name, quota in zip(drawn, self._quota, strict=True):
            if not quota:
                raise UsageError(f"the share of part '{name}' is {shares[name]:g}; less than 1 in {ROUND} is no share")

    def __call__(self, at: int) -> int:
        round_, place = divmod(at, ROUND)
        part, drawn = _round(self.seed, round_, self._quota)
        kind = int(part[place])
        index = round_ * self._quota[kind] + int(drawn[place])
        rows = self._rows[kind]
        epoch, offset = divmod(index, len(rows))
        return int(rows[_permutation((self.seed, epoch, kind), len(rows))[offset]])


def quotas(shares: Sequence[float]) -> tuple[int, ...]:
    """Whole numbers that add up to ``ROUND``, nearest to the shares (largest remainders)."""
    exact = np.array(shares) / sum(shares) * ROUND
    whole = np.floor(exact).astype(int)
    for index in np.argsort(whole - exact, kind="stable")[: ROUND - whole.sum()]:
        whole[index] += 1
    return tuple(int(n) for n in whole)


@lru_cache(maxsize=64)
def _round(seed: int, round_: int, quota: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(ROUND,) the part of each draw, and how many of that part came before it in the round."""
    part = _generator((seed, round_)).permutation(np.repeat(np.arange(len(quota)), quota))
    before = np.zeros(ROUND, int)
    for kind in range(len(quota)):
        before[part == kind] = np.arange(quota[kind])
    return part, before


@lru_cache(maxsize=8)
def _permutation(key: tuple[int, ...], count: int) -> np.ndarray:
    return _generator(key).permutation(count)


def _generator(key: tuple[int, ...]) -> np.random.Generator:
    """Draws the same on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))
