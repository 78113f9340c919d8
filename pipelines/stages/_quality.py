"""What an ingested image looks like in one number: how sharp it is, and a hash that near-duplicates share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE, _LOW = 32, 8
_DECIMALS = 6
"""What should be zero is some rounding error, whose sign would depend on the machine."""


def perceptual_hash(image: Image.Image) -> str:
    """16 hex digits: which of the 8 x 8 lowest frequencies of the grey 32 x 32 image are above their median.

    Row by row, the highest bit first; the median is that of all but the mean. Images that look alike differ in few of
    the 64 bits, unrelated ones in about half (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
    Functions", section 3.2.1).
    """
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    low_88 = (_DCT @ np.asarray(grey, np.float64) @ _DCT.T).round(_DECIMALS)
    low_64 = low_88.ravel()
    median = np.sort(low_64[1:])[(_LOW * _LOW - 1) // 2]
    return np.packbits(low_64 > median).tobytes().hex()


def sharpness(image: Image.Image) -> float:
    """Variance of the Laplacian of the grey image, on the scale of 0 to 255 (Pech-Pacheco et al. 2000).

    The kernel is that of four neighbours; pixels of the edge, which lack some, do not count.
    """
    grey = np.asarray(image.convert("L"), np.int16)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var(dtype=np.float64))


def _dct() -> NDArray[np.float64]:
    """(8, 32) the lowest rows of the orthonormal DCT-II."""
    frequency, position = np.mgrid[:_LOW, :_SIDE]
    rows = np.cos(np.pi * frequency * (position + 0.5) / _SIDE) * np.sqrt(2 / _SIDE)
    rows[0] /= np.sqrt(2)
    return rows


_DCT = _dct()
