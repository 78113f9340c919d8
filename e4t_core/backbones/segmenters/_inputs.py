"""How a segmenter wants its images, in the words of transformers' ``preprocessor_config.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, field_validator

from e4t_core.backbones.segmenters.config import Scale, Side
from e4t_core.config import Config


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
