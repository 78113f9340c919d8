"""What every segmenter does: images in [-1, 1] in, probabilities of the foreground out."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e4t_core.backbones.segmenters._inputs import InputFormat

_FILTERS = {2: "bilinear", 3: "bicubic"}


class Segmenter(nn.Module):
    """A frozen model that tells foreground from background.

    Args:
        takes: how the model wants its images.
    """

    def __init__(self, takes: InputFormat) -> None:
        super().__init__()
        self.takes = takes
        self._mean_311: Tensor
        self._std_311: Tensor
        self.register_buffer("_mean_311", torch.tensor(takes.image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std_311", torch.tensor(takes.image_std).view(3, 1, 1), persistent=False)

    @abstractmethod
    def foreground(self, pixels_B3hw: Tensor) -> Tensor:
        """(B, h', w') probabilities of the foreground, at the size the model gives, from its own kind of input."""

    @torch.no_grad()
    def forward(self, images_B3HW: Tensor) -> Tensor:
        """(B, H, W) float32 probabilities of the foreground, on the device of ``images_B3HW`` (in [-1, 1])."""
        pixels_B3hw = self.prepared(images_B3HW.to(self._mean_311.device))
        maps_B1hw = self.foreground(pixels_B3hw).float()[:, None]
        maps_B1HW = F.interpolate(maps_B1hw, images_B3HW.shape[-2:], mode="bilinear", antialias=True)
        return maps_B1HW[:, 0].clamp(0, 1).to(images_B3HW.device)

    def prepared(self, images_B3HW: Tensor) -> Tensor:
        """(B, 3, h, w) input of the model, as its published image processor makes it from 8-bit images."""
        size = (self.takes.size.height, self.takes.size.width)
        pixels = (images_B3HW.float() + 1) * 127.5
        if pixels.shape[-2:] != size:
            # bicubic overshoots what 8 bits can hold
            pixels = F.interpolate(pixels, size, mode=_FILTERS[self.takes.resample], antialias=True).clamp(0, 255)
        return (pixels * self.takes.rescale_factor - self._mean_311) / self._std_311
