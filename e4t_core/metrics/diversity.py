"""Diversity: do images of one prompt differ, or has the method learned one picture by heart?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from e4t_core.metrics._features import Features, FeaturesConfig, Looks, features_of
from e4t_core.metrics.base import Compared, Metric, MetricConfig


class DiversityConfig(MetricConfig):
    """What images are compared by.

    Attributes:
        features: the network whose features are compared.
    """

    features: FeaturesConfig = FeaturesConfig()


class Diversity(Looks, Metric):
    """Mean cosine distance of each image to the others of its identity and prompt; the mean over the images of a prompt
    is their mean pairwise distance, from 0 (all the same) to 2."""

    name: ClassVar[str] = "diversity"
    title: ClassVar[str] = "diversity"
    Config: ClassVar[type[MetricConfig]] = DiversityConfig
    references: ClassVar[Compared] = "siblings"
    config: DiversityConfig

    def _features(self) -> Features:
        return features_of(self.config.features, self.models, self.device, self.config.batch_size)

    def compare(self, generated_BE: Tensor, references_NE: Tensor, prompts: Sequence[str]) -> Tensor:
        unit_BE = torch.nn.functional.normalize(generated_BE, dim=1)
        distance_BB = (1 - unit_BE @ unit_BE.T).clamp(min=0).fill_diagonal_(torch.nan)
        return distance_BB.nanmean(1)
