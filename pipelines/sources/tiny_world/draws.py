"""Random draws that come out the same on every machine and library version, for years.

NumPy guarantees the raw words of a bit generator, not the streams of its distributions, so every number here is
made from raw words by our own formula. Streams are named, and a stream never depends on how much of another was used.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

_BLOCK = 64


class Draws:
    """A stream of numbers that belongs to a name.

    Args:
        name: what the stream is for (``Draws(0, "face", "train", 12, "traits")``); texts and whole numbers.
    """

    def __init__(self, *name: str | int) -> None:
        self._name = name
        self._ready: list[float] = []

    @cached_property
    def _bits(self) -> np.random.PCG64:
        """Seeded on first use: some pictures leave some of their streams alone."""
        digest = hashlib.blake2b("\0".join(map(str, self._name)).encode(), digest_size=16).digest()
        return np.random.PCG64(int.from_bytes(digest, "big"))

    def unit(self) -> float:
        """Uniform in [0, 1), 53 bits."""
        if not self._ready:
            self._ready = self.units(_BLOCK).tolist()
        return self._ready.pop()

    def units(self, *shape: int) -> NDArray[np.float64]:
        """An array of :meth:`unit`."""
        words = self._bits.random_raw(math.prod(shape))
        return (words >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.unit()

    def middling(self, low: float, high: float) -> float:
        """In [low, high), more often near the middle (a triangle)."""
        return low + (high - low) * (self.unit() + self.unit()) / 2

    def chance(self, p: float) -> bool:
        """True with probability ``p``."""
        return self.unit() < p

    def sign(self) -> int:
        """-1 or 1."""
        return 1 if self.unit() < 0.5 else -1

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        return int(self.unit() * n)

    def choice(self, options: Sequence[T]) -> T:
        """One of ``options``, all equally likely."""
        return options[self.below(len(options))]

    def weighted(self, options: Mapping[T, float]) -> T:
        """One key of ``options``, as likely as its value is large."""
        left = self.unit() * sum(options.values())
        for option, weight in options.items():
            left -= weight
            if left < 0:
                return option
        return option

    def named(self, table: Mapping[str, tuple[Any, float]]) -> str:
        """One name of a table ``name -> (what it is, how likely)``."""
        return self.weighted({name: weight for name, (_, weight) in table.items()})

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """All of ``options`` in a random order."""
        order = np.argsort(self.units(len(options)), kind="stable")
        return [options[i] for i in order]
