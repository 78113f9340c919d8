"""How a model wants its images, in the words of transformers' ``preprocessor_config.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from e4t_core.config import Config

Side = Annotated[int, Field(ge=1)]
Scale = Annotated[float, Field(gt=0)]
_FILTERS = {2: "bilinear", 3: "bicubic"}


class Size(Config):
    """Pixels."""

    height: Side
    width: Side


class InputFormat(Config):
    """Images are resized to ``size``, multiplied by ``rescale_factor``, and normalised: (x - mean) / std.

    Attributes:
        size: of the input; one number is a square.
        image_mean, image_std: per channel, RGB.
        resample: Pillow's number of the filter: 2 is bilinear, 3 bicubic.
        rescale_factor: for pixels from 0 to 255.
        do_resize, do_rescale, do_normalize, do_center_crop: steps that must, or must not, be there.
    """

    model_config = pydantic.ConfigDict(extra="ignore")

    size: Size
    image_mean: tuple[float, float, float]
    image_std: tuple[Scale, Scale, Scale]
    resample: Literal[2, 3] = 2
    rescale_factor: Annotated[float, Field(gt=0)] = 1 / 255
    do_resize: Literal[True] = True
    do_rescale: Literal[True] = True
    do_normalize: Literal[True] = True
    do_center_crop: Literal[False] | None = None

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, size: Any) -> Any:
        return {"height": size, "width": size} if isinstance(size, int) else size


class ImageInput(nn.Module):
    """Our images -> a model's input, as its published image processor makes it from 8-bit images."""

    def __init__(self, takes: InputFormat) -> None:
        super().__init__()
        self.takes = takes
        self._mean_311: Tensor
        self._std_311: Tensor
        self.register_buffer("_mean_311", torch.tensor(takes.image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std_311", torch.tensor(takes.image_std).view(3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._mean_311.device

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """(B, 3, h, w) float32 of images in [-1, 1]."""
        size = (self.takes.size.height, self.takes.size.width)
        pixels = (images_B3HW.float() + 1) * 127.5
        if pixels.shape[-2:] != size:
            # bicubic overshoots what 8 bits can hold
            pixels = F.interpolate(pixels, size, mode=_FILTERS[self.takes.resample], antialias=True).clamp(0, 255)
        return (pixels * self.takes.rescale_factor - self._mean_311) / self._std_311
