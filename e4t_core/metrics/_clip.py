"""What the metrics in CLIP space share: the model, loaded once per worker, and its configuration."""

from __future__ import annotations

from typing import cast

from e4t_core.backbones import ClipModel
from e4t_core.backbones.config import ClipConfig
from e4t_core.metrics._features import ClipFeatures, Features, Looks
from e4t_core.metrics.base import Metric, MetricConfig


class ClipMetricConfig(MetricConfig):
    """Fields of every metric in CLIP space.

    Attributes:
        clip: the model to judge with; the recipe's ``clip`` section if ``null``.
    """

    clip: ClipConfig | None = None


class ClipMetric(Looks, Metric):
    """Base of the metrics in CLIP space."""

    config: ClipMetricConfig

    def _features(self) -> Features:
        return ClipFeatures(self.config.clip or self.models.clip, self.device, self.config.batch_size)

    @property
    def model(self) -> ClipModel:
        """The loaded model."""
        return cast(ClipFeatures, self.features).model
