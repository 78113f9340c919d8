"""``mask``: the foreground of each image, for masked losses."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from e4t_core.schema import Sample, image_member
from pipelines.stages.base import Bad, Stage, StageConfig

_FOREGROUND = 128


class MaskConfig(StageConfig):
    """Where masks come from.

    Attributes:
        mode: ``source`` takes the mask that the source has.
        missing: without one, ``quarantine`` the sample or take the ``full`` image as foreground.
    """

    mode: Literal["source"] = "source"
    missing: Literal["quarantine", "full"] = "quarantine"


class Mask(Stage):
    """8-bit ``mask.png`` at image size: 255 is foreground."""

    name: ClassVar[str] = "mask"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("ingest",)
    writes: ClassVar[tuple[str, ...]] = ("mask.png",)
    Config: ClassVar[type[StageConfig]] = MaskConfig
    config: MaskConfig

    def __call__(self, batch: Sequence[Sample]) -> list[Mapping[str, bytes] | Bad]:
        return [self._one(sample) for sample in batch]

    def _one(self, sample: Sample) -> Mapping[str, bytes] | Bad:
        mask = sample.get("source_mask.png")
        if mask is not None:
            return _checked(mask)
        if self.config.missing == "quarantine":
            return Bad("no_mask", "the source has no mask for it; add one, or set stages.mask.missing=full")
        with Image.open(io.BytesIO(sample[image_member(sample)])) as image:
            return {"mask.png": _full(image.size)}


def _checked(mask: bytes) -> Mapping[str, bytes] | Bad:
    """``ingest`` wrote it at image size already; only its content is left to judge."""
    with Image.open(io.BytesIO(mask)) as image:
        highest = int(np.asarray(image).max())
    if highest < _FOREGROUND:
        return Bad("empty_mask", f"the mask's highest level is {highest} of 255; foreground is {_FOREGROUND} or more")
    return {"mask.png": mask}


def _full(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, 255).save(buffer, "PNG")
    return buffer.getvalue()
