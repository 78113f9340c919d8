"""DINO: does the image show this very thing, and not another of its class? Self-supervised features tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from e4t_core.backbones.dino import DinoConfig
from e4t_core.metrics._features import DinoFeatures, Features, Looks, mean_cosine
from e4t_core.metrics.base import Metric, MetricConfig


class DinoMetricConfig(DinoConfig, MetricConfig):
    """The transformer that judges; ViT-S/16 in the papers (``facebook/dino-vits16``)."""


class DinoSimilarity(Looks, Metric):
    """Mean cosine between the [CLS] features of each image and of all images of the concept (HyperDreamBooth table 1,
    after DreamBooth's section 4)."""

    name: ClassVar[str] = "dino"
    title: ClassVar[str] = "DINO"
    Config: ClassVar[type[MetricConfig]] = DinoMetricConfig
    config: DinoMetricConfig

    def _features(self) -> Features:
        named = {field: getattr(self.config, field) for field in DinoConfig.model_fields}
        return DinoFeatures(DinoConfig(**named), self.device, self.config.batch_size)

    def compare(self, generated_BE: Tensor, references_NE: Tensor, prompts: Sequence[str]) -> Tensor:
        return mean_cosine(generated_BE, references_NE)
