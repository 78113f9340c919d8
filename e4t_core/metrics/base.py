"""The metric contract: one score per generated image, so that every aggregate is a query over rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from e4t_core.backbones.config import Models
from e4t_core.config import Config


class MetricConfig(Config):
    """Fields every metric has; a metric adds its own."""

    device: str = "cpu"
    batch_size: int = 32


class Metric(ABC):
    """Scores generated images. The constructor stores values; :meth:`setup` loads the model in the worker."""

    name: ClassVar[str]
    title: ClassVar[str]
    """What papers and reports call it."""
    Config: ClassVar[type[MetricConfig]]
    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Any, models: Models) -> None:
        self.config = config
        self.models = models

    def setup(self) -> None:
        """Load the model, once per worker."""

    @abstractmethod
    def __call__(self, generated_B3HW: Tensor, references_N3HW: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) float scores; NaN where the metric cannot be computed for an image (a face not found), which
        reports count. ``prompts`` are the concept-less prompts of each generated image; images are in [-1, 1]."""
