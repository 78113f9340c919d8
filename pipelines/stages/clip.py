"""``clip``: what the encoders see of an image, computed once: per-layer [CLS] and, if wanted, patch tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from e4t_core.backbones import ClipModel, clip_weights_fingerprint, load_clip
from e4t_core.backbones.config import Models
from e4t_core.images import decode_mask
from e4t_core.schema import Sample
from pipelines.stages._encode import decode, half_arrays, images
from pipelines.stages.base import Bad, Stage, StageConfig


class ClipStageConfig(StageConfig):
    """What is kept of the model's output. Which model it is says the recipe's ``clip`` section.

    Attributes:
        tokens: also write the last layer's patch tokens (half a megabyte an image for ViT-H/14).
        masked: see the image with its background black, ``x * mask`` (Taming Encoder section 3.3); needs the column
            ``mask``.
    """

    later: ClassVar[frozenset[str]] = frozenset({"masked"})

    tokens: bool = False
    masked: bool = False


class Clip(Stage):
    """``clip_cls.npy`` (L, D) and optionally ``clip_tokens.npy`` (T, D), float16."""

    name: ClassVar[str] = "clip"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("ingest",)
    writes: ClassVar[tuple[str, ...]] = ("clip_cls.npy", "clip_tokens.npy")
    Config: ClassVar[type[StageConfig]] = ClipStageConfig
    config: ClipStageConfig
    model: ClipModel

    def __init__(self, config: ClipStageConfig, models: Models) -> None:
        super().__init__(config, models)
        if config.masked:
            self.reads = (*type(self).reads, "mask")  # type: ignore[misc]

    def settings(self) -> dict[str, Any]:
        clip = self.models.clip
        return {**super().settings(), "every": clip.every, "dtype": clip.dtype}

    def weights(self) -> str:
        return clip_weights_fingerprint(self.models.clip)

    def setup(self) -> None:
        self.model = load_clip(self.models.clip, self.config.resources.device)

    def prepare(self, batch: Sequence[Sample]) -> None:
        decode(batch, self.config.resources.threads)

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Sample]) -> list[Mapping[str, bytes] | Bad]:
        resources = self.config.resources
        images_B3HW = images(batch, resources.threads)
        if self.config.masked:
            images_B3HW = without_background(images_B3HW, _masks(batch))
        images_B3HW = images_B3HW.to(resources.device)
        cls_BLD, tokens_BTD = self.model.image_features(images_B3HW, tokens=self.config.tokens)
        outputs = {"clip_cls.npy": cls_BLD.float().cpu()}
        if tokens_BTD is not None:
            outputs["clip_tokens.npy"] = tokens_BTD.float().cpu()
        return [half_arrays(self.name, outputs, i) for i in range(len(batch))]


def without_background(images_B3HW: torch.Tensor, masks_B1HW: torch.Tensor) -> torch.Tensor:
    """``x * m``: images in [-1, 1], where black is -1, with what the masks in [0, 1] leave out black."""
    return (images_B3HW + 1) * masks_B1HW - 1


def _masks(batch: Sequence[Sample]) -> torch.Tensor:
    return torch.stack([decode_mask(s["mask.png"], f"the mask of {s['__key__']}") for s in batch])
