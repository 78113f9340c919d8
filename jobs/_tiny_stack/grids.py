"""Pictures for people to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_GAP = 2


def save_grid(path: Path, images_B3HW: Tensor, columns: int) -> None:
    """A PNG of images in [-1, 1], ``columns`` to a row, on white."""
    pixels = images_B3HW.detach().float().cpu().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    count, _, height, width = pixels.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for i, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        y, x = i // columns * (height + _GAP), i % columns * (width + _GAP)
        canvas[y : y + height, x : x + width] = image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas).save(path, "PNG")
