"""Orthonormal bases that a seed alone decides: the same on every machine, device and library version.

Only numpy's Philox counter, whose raw words are guaranteed, and arithmetic of our own stand between the seed and the
basis. What is left to the machine is the last bit of a float64; :func:`checksum` tells whether it was only that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_PURPOSE = "e4t LiDB bases 1"
"""Part of every stream's key: raise the number if any formula here changes."""
_DIGITS = 6


@lru_cache(maxsize=1024)
def orthonormal(seed: int, stream: str, rows: int, columns: int) -> NDArray[np.float64]:
    """(rows, columns) with orthonormal columns, uniformly distributed (Haar); read-only.

    The Q of a matrix of normals, with the sign that makes R's diagonal positive.

    Args:
        seed: one for all bases of a model.
        stream: names the basis; another name, another basis.

    Raises:
        ValueError: more columns than rows.
    """
    if columns > rows:
        raise ValueError(f"{columns} columns of {rows} numbers cannot be orthonormal")
    q, r = np.linalg.qr(normals(seed, stream, rows * columns).reshape(rows, columns))
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)
    q.flags.writeable = False
    return q


def normals(seed: int, stream: str, count: int) -> NDArray[np.float64]:
    """``count`` standard normal numbers (Box and Muller 1958) from Philox's raw 64-bit words."""
    key = hashlib.sha256(f"{_PURPOSE}/{seed}/{stream}".encode()).digest()[:16]
    words = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(2 * -(-count // 2))
    # the highest 53 bits, in (0, 1]: the logarithm never meets a zero
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
    radius, angle = np.sqrt(-2.0 * np.log(uniform[0::2])), 2.0 * np.pi * uniform[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:count]


def checksum(bases: Iterable[NDArray[np.float64]]) -> float:
    """One number that two sets of bases share only if they are the same but for rounding; see :func:`same`."""
    total = 0.0
    for number, basis in enumerate(bases, 1):
        rows, columns = basis.shape
        across = np.linspace(-1.0, 1.0, rows) @ basis @ np.linspace(1.0, 2.0, columns)
        total += float(across) * (1.0 + number / 7.0)
    return round(total, _DIGITS)


def same(a: float, b: float) -> bool:
    """Whether two checksums differ by rounding alone."""
    return abs(a - b) <= 2 * 10.0**-_DIGITS
