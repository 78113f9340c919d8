"""CLIP-I (OSim): does the image look like the concept's own images?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from e4t_core.metrics._clip import ClipMetric, ClipMetricConfig
from e4t_core.metrics.base import MetricConfig


class ClipI(ClipMetric):
    """Mean cosine between each image and all images of the concept (HyperDreamBooth table 1)."""

    name: ClassVar[str] = "clip_i"
    title: ClassVar[str] = "CLIP-I"
    Config: ClassVar[type[MetricConfig]] = ClipMetricConfig

    def __call__(self, generated_B3HW: Tensor, references_N3HW: Tensor, prompts: Sequence[str]) -> Tensor:
        return (self.embed(generated_B3HW) @ self.embed(references_N3HW).T).mean(1)
