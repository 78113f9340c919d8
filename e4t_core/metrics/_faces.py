"""Where the face is: what stands between an image and a face embedder."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Detector(Protocol):
    """Finds the face of each image and cuts it out as the embedder was trained to see it."""

    def __call__(self, images_B3HW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Images in [-1, 1] -> (B, 3, h, w) crops of ``size`` in [-1, 1], and (B,) bool: was a face found?"""


def whole_image(images_B3HW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The detector for images that are faces already: every image is its own crop."""
    crops_B3hw = images_B3HW
    if images_B3HW.shape[-2:] != size:
        crops_B3hw = F.interpolate(images_B3HW, size, mode="bilinear", antialias=True, align_corners=False)
    return crops_B3hw.clamp(-1, 1), torch.ones(len(images_B3HW), dtype=torch.bool)
