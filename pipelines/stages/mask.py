"""``mask``: the foreground of each image, for masked losses."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from e4t_core.backbones.config import Models
from e4t_core.backbones.segmenters import (
    ClipSegConfig,
    SaliencyConfig,
    SegformerConfig,
    SegmenterConfig,
    load_segmenter,
    segmenter_weights_fingerprint,
)
from e4t_core.backbones.segmenters.base import Segmenter
from e4t_core.schema import Sample, image_member
from pipelines.stages._encode import decode, images, not_finite
from pipelines.stages.base import Bad, Stage, StageConfig

_FOREGROUND = 128
_KINDS = ("clipseg", "segformer", "saliency")
Share = Annotated[float, Field(ge=0, le=1)]


class MaskConfig(StageConfig):
    """Where masks come from, and which of a segmenter's are believed.

    A cat by its name, a face without its background by its parts, whatever stands out::

        mask: {mode: clipseg, clipseg: {path: CIDAS/clipseg-rd64-refined, prompts: [a cat]}}
        mask: {mode: segformer, segformer: {path: jonathandinu/face-parsing, labels: [skin, nose, hair]}}
        mask: {mode: saliency, saliency: {path: s3://bucket/models, file: u2net.onnx}}

    Attributes:
        mode: ``source`` takes the mask that the source has; the others name the segmenter that makes it.
        missing: in mode ``source``, without one, ``quarantine`` the sample, take the ``full`` image as foreground, or
            ``segment`` it with the one segmenter that is configured.
        clipseg, segformer, saliency: the segmenters' own settings.
        threshold: probability from which a segmenter's pixel is foreground.
        min_share: a segmenter's mask with less foreground (share of the pixels) is quarantined as ``empty_mask``; 0
            keeps them all, but a masked loss refuses one without any foreground.
        max_share: one with more is quarantined as ``full_mask``; 1 keeps them all.
    """

    mode: Literal["source", "clipseg", "segformer", "saliency"] = "source"
    missing: Literal["quarantine", "full", "segment"] = "quarantine"
    clipseg: ClipSegConfig | None = None
    segformer: SegformerConfig | None = None
    saliency: SaliencyConfig | None = None
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_share: Share = 0.01
    max_share: Share = 0.99

    @property
    def kind(self) -> str | None:
        """The segmenter that is used, if one is."""
        if self.mode != "source":
            return self.mode
        return self._configured[0] if self.missing == "segment" else None

    @property
    def segmenter(self) -> SegmenterConfig | None:
        """Its settings."""
        return getattr(self, self.kind) if self.kind else None

    @property
    def _configured(self) -> list[str]:
        return [kind for kind in _KINDS if getattr(self, kind) is not None]

    @model_validator(mode="after")
    def _consistent(self) -> MaskConfig:
        configured = self._configured
        if self.mode != "source" and self.mode not in configured:
            raise ValueError(f"mode '{self.mode}' needs a section '{self.mode}' that says which model")
        if self.mode == "source" and self.missing == "segment" and len(configured) != 1:
            has = " and ".join(configured) or "none"
            raise ValueError(f"missing 'segment' needs exactly one of the sections {', '.join(_KINDS)}; it has {has}")
        if self.min_share > self.max_share:
            raise ValueError(f"min_share {self.min_share} is above max_share {self.max_share}: no mask could pass")
        return self


class Mask(Stage):
    """8-bit ``mask.png`` at image size: 255 is foreground.

    A segmenter's is binary, with its probabilities (255 is 1) beside it as ``mask_soft.png``. The losses weigh latent
    cells by the mask's mean in each, so a probability would be taken for a share of foreground.
    """

    name: ClassVar[str] = "mask"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("ingest",)
    writes: ClassVar[tuple[str, ...]] = ("mask.png",)
    Config: ClassVar[type[StageConfig]] = MaskConfig
    config: MaskConfig
    segmenter: Segmenter

    def __init__(self, config: MaskConfig, models: Models) -> None:
        super().__init__(config, models)
        if config.segmenter is not None:
            # only then: manifests name what a stage writes, and those without a segmenter stay as they are
            self.writes = (*type(self).writes, "mask_soft.png")  # type: ignore[misc]

    def settings(self) -> dict[str, Any]:
        """What is used of the configuration; where the model lies does not matter, :meth:`weights` says what it is."""
        c, section = self.config, self.config.segmenter
        about: dict[str, Any] = {"mode": c.mode}
        if c.mode == "source":
            about["missing"] = c.missing
        if section is not None:
            about |= {"threshold": c.threshold, "min_share": c.min_share, "max_share": c.max_share}
            about[str(c.kind)] = {k: v for k, v in section.dump().items() if k not in ("path", "file")}
        return about

    def weights(self) -> str:
        section = self.config.segmenter
        return "" if section is None else segmenter_weights_fingerprint(section)

    def setup(self) -> None:
        if self.config.segmenter is not None:
            self.segmenter = load_segmenter(self.config.segmenter, self.config.resources.device)

    def prepare(self, batch: Sequence[Sample]) -> None:
        decode([sample for sample in batch if self._needs_segmenter(sample)], self.config.resources.threads)

    def __call__(self, batch: Sequence[Sample]) -> list[Mapping[str, bytes] | Bad]:
        segmented = iter(self._segmented([sample for sample in batch if self._needs_segmenter(sample)]))
        return [next(segmented) if self._needs_segmenter(s) else self._from_source(s) for s in batch]

    def _needs_segmenter(self, sample: Sample) -> bool:
        return self.config.segmenter is not None and (
            self.config.mode != "source" or sample.get("source_mask.png") is None
        )

    def _from_source(self, sample: Sample) -> Mapping[str, bytes] | Bad:
        mask = sample.get("source_mask.png")
        if mask is not None:
            return _checked(mask)
        if self.config.missing == "quarantine":
            return Bad("no_mask", "the source has no mask for it; add one, or set stages.mask.missing=full")
        with Image.open(io.BytesIO(sample[image_member(sample)])) as image:
            return {"mask.png": _full(image.size)}

    def _segmented(self, samples: Sequence[Sample]) -> list[Mapping[str, bytes] | Bad]:
        if not samples:
            return []
        probabilities_BHW = self.segmenter(images(samples, self.config.resources.threads))
        return [self._judged(probabilities_HW) for probabilities_HW in probabilities_BHW]

    def _judged(self, probabilities_HW: Tensor) -> Mapping[str, bytes] | Bad:
        """Both members, unless the mask is none."""
        c = self.config
        if not bool(probabilities_HW.isfinite().all()):
            return not_finite(self.name, f"the map of {c.kind}")
        foreground_HW = probabilities_HW >= c.threshold
        share = float(foreground_HW.float().mean())
        found = f"{c.kind} finds foreground on {share:.4g} of the image"
        if share < c.min_share:
            return Bad("empty_mask", f"{found}; {c.min_share:g} (stages.mask.min_share) or more is kept")
        if share > c.max_share:
            return Bad("full_mask", f"{found}; {c.max_share:g} (stages.mask.max_share) or less is kept")
        soft = (probabilities_HW * 255).round().byte().numpy()
        return {"mask.png": _png(foreground_HW.byte().mul(255).numpy()), "mask_soft.png": _png(soft)}


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


def _png(levels_HW: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels_HW).save(buffer, "PNG")
    return buffer.getvalue()
