"""The metric contract: one score per generated image, so that every aggregate is a query over rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from e4t_core.backbones.config import Models
from e4t_core.config import Config


class MetricConfig(Config):
    """Fields every metric has; a metric adds its own.

    Attributes:
        device: torch device string; ``null`` is that of whatever runs the metric (``evaluate.device`` in the jobs).
        batch_size: images that its model sees at once.
    """

    device: str | None = None
    batch_size: int = 32


class Metric(ABC):
    """Scores generated images. The constructor stores values; :meth:`setup` loads the model in the worker."""

    name: ClassVar[str]
    title: ClassVar[str]
    """What papers and reports call it."""
    Config: ClassVar[type[MetricConfig]]
    higher_is_better: ClassVar[bool] = True
    references: ClassVar[Literal["concept", "real"]] = "concept"
    """Which images it is given to compare with: those that the method saw, or all real ones of the identity. In the
    second case evaluations score the held-out ones apart as well, as ``<name>_heldout``."""

    def __init__(self, config: Any, models: Models, device: str = "cpu") -> None:
        self.config = config
        self.models = models
        self.device: str = config.device or device

    def setup(self) -> None:
        """Load the model, once per worker."""

    def weights(self) -> str:
        """Content fingerprint of the model that judges, without loading it: another judge, other scores."""
        return ""

    def untrained(self) -> bool:
        """Whether that model's weights are random, so that the scores mean nothing; reports say so."""
        return False

    @abstractmethod
    def __call__(self, generated_B3HW: Tensor, references_N3HW: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) float scores; NaN where the metric cannot be computed for an image (a face not found), which
        reports count. ``prompts`` are the concept-less prompts of each generated image; images are in [-1, 1]."""
