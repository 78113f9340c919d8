"""What the metrics in CLIP space share: the model, loaded once per worker, and embedding in batches."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from e4t_core.backbones import ClipModel, clip_weights_fingerprint, load_clip
from e4t_core.backbones.config import ClipConfig
from e4t_core.metrics.base import Metric, MetricConfig


class ClipMetricConfig(MetricConfig):
    """Fields of every metric in CLIP space.

    Attributes:
        clip: the model to judge with; the recipe's ``clip`` section if ``null``.
    """

    clip: ClipConfig | None = None


@lru_cache(maxsize=2)
def _loaded(config: ClipConfig, device: str) -> ClipModel:
    """One frozen model serves every metric of a worker."""
    return load_clip(config, device)


class ClipMetric(Metric):
    """Base of the metrics in CLIP space."""

    config: ClipMetricConfig
    model: ClipModel

    @property
    def _judge(self) -> ClipConfig:
        return self.config.clip or self.models.clip

    def setup(self) -> None:
        self.model = _loaded(self._judge, self.device)

    def weights(self) -> str:
        return clip_weights_fingerprint(self._judge)

    def untrained(self) -> bool:
        return self._judge.random_seed is not None

    @torch.inference_mode()
    def embed(self, images_B3HW: Tensor) -> Tensor:
        """(B, E) unit vectors on the CPU, ``batch_size`` images at a time."""
        parts = [self.model.embed_images(part.to(self.device)) for part in images_B3HW.split(self.config.batch_size)]
        return torch.cat(parts).float().cpu()
