"""``latent``: the VAE's posterior moments of each image, so that training never runs the VAE's encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from e4t_core.backbones import load_autoencoder, vae_weights_fingerprint
from e4t_core.errors import UsageError
from e4t_core.schema import Sample
from pipelines.stages._encode import decode, half_arrays, images
from pipelines.stages.base import Bad, Stage, StageConfig

if TYPE_CHECKING:
    from e4t_core.backbones.autoencoder import Autoencoder


class Latent(Stage):
    """``latent.npy`` (2C, h, w) float16: mean, then log variance, unscaled."""

    name: ClassVar[str] = "latent"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("ingest",)
    writes: ClassVar[tuple[str, ...]] = ("latent.npy",)
    Config: ClassVar[type[StageConfig]] = StageConfig
    autoencoder: Autoencoder

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "dtype": self.models.backbone.dtype}

    def weights(self) -> str:
        return vae_weights_fingerprint(self.models.backbone)

    def setup(self) -> None:
        self.autoencoder = load_autoencoder(self.models.backbone, self.config.resources.device)

    def prepare(self, batch: Sequence[Sample]) -> None:
        decode(batch, self.config.resources.threads)

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Sample]) -> list[Mapping[str, bytes] | Bad]:
        resources = self.config.resources
        images_B3HW = images(batch, resources.threads)
        side = self.models.backbone.resolution
        if images_B3HW.shape[-2:] != (side, side):
            height, width = images_B3HW.shape[-2:]
            raise UsageError(
                f"images are {width} x {height}, backbone.resolution is {side}: set stages.ingest.size={side}"
            )
        moments_B2Chw = self.autoencoder.to_moments(images_B3HW.to(resources.device))
        outputs = {"latent.npy": moments_B2Chw.float().cpu()}
        return [half_arrays(self.name, outputs, i) for i in range(len(batch))]
