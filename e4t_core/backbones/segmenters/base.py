"""What every segmenter does: images in [-1, 1] in, probabilities of the foreground out."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e4t_core.backbones.image_input import ImageInput, InputFormat


class Segmenter(nn.Module):
    """A frozen model that tells foreground from background.

    Args:
        takes: how the model wants its images.
    """

    def __init__(self, takes: InputFormat) -> None:
        super().__init__()
        self.prepared = ImageInput(takes)

    @abstractmethod
    def foreground(self, pixels_B3hw: Tensor) -> Tensor:
        """(B, h', w') probabilities of the foreground, at the size the model gives, from its own kind of input."""

    @torch.no_grad()
    def forward(self, images_B3HW: Tensor) -> Tensor:
        """(B, H, W) float32 probabilities of the foreground, on the device of ``images_B3HW`` (in [-1, 1])."""
        pixels_B3hw = self.prepared(images_B3HW.to(self.prepared.device))
        maps_B1hw = self.foreground(pixels_B3hw).float()[:, None]
        maps_B1HW = F.interpolate(maps_B1hw, images_B3HW.shape[-2:], mode="bilinear", antialias=True)
        return maps_B1HW[:, 0].clamp(0, 1).to(images_B3HW.device)
