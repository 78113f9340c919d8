"""Inputs for the benchmarks: photographs-sized JPEGs made from a seed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int, width: int = 640, height: int = 480) -> bytes:
    """JPEG bytes with the statistics of a photograph: smooth colour, some texture (about 60 KB)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 6, (height, width, 1))
    pixels = np.clip(np.asarray(coarse, np.float32) + grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def photo_folder(folder: Path, count: int, distinct: int = 64) -> Path:
    """``count`` JPEG files, ``distinct`` different ones."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [photo(seed) for seed in range(distinct)]
    for i in range(count):
        (folder / f"{i:05d}.jpg").write_bytes(images[i % distinct])
    return folder
