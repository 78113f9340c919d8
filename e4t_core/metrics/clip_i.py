"""CLIP-I (OSim): does the image look like the concept's own images?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from e4t_core.metrics._clip import ClipMetric, ClipMetricConfig
from e4t_core.metrics._features import mean_cosine
from e4t_core.metrics.base import MetricConfig


class ClipI(ClipMetric):
    """Mean cosine between each image and all images of the concept (HyperDreamBooth table 1)."""

    name: ClassVar[str] = "clip_i"
    title: ClassVar[str] = "CLIP-I"
    Config: ClassVar[type[MetricConfig]] = ClipMetricConfig

    def compare(self, generated_BE: Tensor, references_NE: Tensor, prompts: Sequence[str]) -> Tensor:
        return mean_cosine(generated_BE, references_NE)
