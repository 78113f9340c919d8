"""The metric contracts. Every metric sees an image as one vector; what differs is what the vectors are compared with.

- :class:`Metric` gives one score per generated image, so that every aggregate is a query over rows;
- :class:`SetMetric` gives one score for all images of a method against real ones, with its own spread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from e4t_core.backbones.config import Models
from e4t_core.config import Config

Compared = Literal["concept", "real", "siblings"]


class MetricConfig(Config):
    """Fields every metric has; a metric adds its own.

    Attributes:
        device: torch device string; ``null`` is that of whatever runs the metric (``evaluate.device`` in the jobs).
        batch_size: images that its model sees at once.
    """

    device: str | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32


class BaseMetric(ABC):
    """What both contracts share. The constructor stores values; :meth:`setup` loads the model in the worker."""

    name: ClassVar[str]
    title: ClassVar[str]
    """What papers and reports call it."""
    Config: ClassVar[type[MetricConfig]]
    higher_is_better: ClassVar[bool] = True
    misses: ClassVar[bool] = False
    """Whether it cannot see every image (a face is not found): evaluations then count such real images as well."""

    def __init__(self, config: Any, models: Models, device: str = "cpu") -> None:
        self.config = config
        self.models = models
        self.device: str = config.device or device

    @abstractmethod
    def setup(self) -> None:
        """Load the model, once per worker."""

    @abstractmethod
    def weights(self) -> str:
        """Content fingerprint of the model that judges, without loading it: another judge, other scores."""

    def untrained(self) -> bool:
        """Whether that model's weights are random, so that the scores mean nothing; reports say so."""
        return False

    @property
    @abstractmethod
    def space(self) -> str:
        """Names what :meth:`embed` computes, wherever: metrics of one space share one pass over the images."""

    @abstractmethod
    def embed(self, images_B3HW: Tensor) -> Tensor:
        """(B, E) float32 vectors on the CPU of images in [-1, 1]; a row of NaN where there is none (no face found)."""


class Metric(BaseMetric):
    """Scores generated images, one by one."""

    references: ClassVar[Compared] = "concept"
    """What an image is compared with: the images that the method saw (``concept``); all real ones of the identity
    (``real``; evaluations score the held-out ones apart as well, as ``<name>_heldout``); or the other images of its
    identity and prompt (``siblings``; an image without any is not due, which is no failure)."""

    @abstractmethod
    def compare(self, generated_BE: Tensor, references_NE: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) float32 scores of embedded images; NaN where there is none, which reports count.

        Args:
            generated_BE: from :meth:`embed`; all of one identity, and of one prompt if they are ``siblings``.
            references_NE: likewise; rows of NaN are to be left out. Where :attr:`references` is ``siblings``, these
                are ``generated_BE`` themselves, and each image leaves itself out.
            prompts: the concept-less prompt of each generated image.
        """

    def __call__(self, generated_B3HW: Tensor, references_N3HW: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) scores of images in [-1, 1]: :meth:`embed`, then :meth:`compare`."""
        generated_BE = self.embed(generated_B3HW)
        others = self.references == "siblings"
        return self.compare(generated_BE, generated_BE if others else self.embed(references_N3HW), prompts)


class SetMetricConfig(MetricConfig):
    """Fields of every metric of sets.

    Attributes:
        references: URI of shards whose images are the real ones; ``null`` takes all of the shards that the evaluation
            is given, whoever is on them.
        max_images: most images of either side, drawn by the recipe's seed: bounds memory whatever the count.
    """

    references: str | None = None
    max_images: Annotated[int, Field(ge=2)] = 20_000


@dataclass(frozen=True)
class SetScore:
    """A score of a whole set of images.

    Attributes:
        mean, std: over the estimates that the metric made; NaN if it could make none.
        note: why it could not; empty if it could.
        facts: what the estimates are over (subsets, their size).
    """

    mean: float
    std: float
    note: str = ""
    facts: Mapping[str, int] = field(default_factory=dict)


class SetMetric(BaseMetric):
    """Scores all images of a method at once, against real ones. It has no score per image or identity, hence neither a
    bootstrap over identities nor a paired difference: its spread is its own."""

    config: SetMetricConfig
    higher_is_better: ClassVar[bool] = False

    @abstractmethod
    def least(self) -> int:
        """Images that it needs of either side."""

    @abstractmethod
    def compare(self, generated_NE: Tensor, real_ME: Tensor, seed: int) -> SetScore:
        """The score of embedded images, none of them NaN. ``seed`` decides whatever is drawn, and nothing else does."""
