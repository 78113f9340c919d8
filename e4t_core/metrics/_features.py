"""Networks whose features metrics compare: CLIP, DINO, or any that comes as an ONNX file (Inception v3 for KID)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, ClassVar

import torch
from pydantic import model_validator
from torch import Tensor
from torch.nn import functional as F

from e4t_core.backbones import ClipModel, clip_weights_fingerprint, load_clip
from e4t_core.backbones.config import ClipConfig, Models
from e4t_core.backbones.dino import Dino, DinoConfig, dino_weights_fingerprint, load_dino
from e4t_core.backbones.onnx_files import model_file_hash
from e4t_core.config import Config
from e4t_core.metrics._faces import whole_image
from e4t_core.metrics._onnx import SHIPPED, ImageEmbedderConfig, ScaledEmbedder
from e4t_core.metrics.base import BaseMetric
from e4t_core.record import canonical_json


class FeaturesConfig(Config):
    """Whose features; the recipe's ``clip`` section if none is named.

    Attributes:
        clip: an open_clip model.
        dino: a DINO vision transformer.
        onnx: any network that gives one vector an image (Inception v3's pool for KID as it was published).
    """

    clip: ClipConfig | None = None
    dino: DinoConfig | None = None
    onnx: ImageEmbedderConfig | None = None

    @model_validator(mode="after")
    def _one(self) -> FeaturesConfig:
        named = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} are both given; name the one network to look with")
        return self


class Features(ABC):
    """A network that gives each image a vector. The constructor stores values; :meth:`setup` loads it."""

    unit: ClassVar[bool] = True
    """Whether the vectors have unit length."""

    def __init__(self, config: Any, device: str, batch_size: int) -> None:
        self.config, self.device, self.batch_size = config, device, batch_size

    @property
    def space(self) -> str:
        """See :attr:`e4t_core.metrics.base.BaseMetric.space`."""
        return f"{type(self).__name__} {canonical_json(self.config.dump()).decode()}"

    @abstractmethod
    def setup(self) -> None:
        """Load it."""

    @abstractmethod
    def weights(self) -> str:
        """Content fingerprint; loads nothing."""

    def untrained(self) -> bool:
        """Whether its weights are random."""
        return False

    @abstractmethod
    def _embed(self, images_B3HW: Tensor) -> Tensor:
        """(B, E) of one batch on the device."""

    @torch.inference_mode()
    def embed(self, images_B3HW: Tensor) -> Tensor:
        """(B, E) float32 vectors on the CPU, ``batch_size`` images at a time."""
        parts = [self._embed(part.to(self.device)) for part in images_B3HW.split(self.batch_size)]
        return torch.cat(parts).float().cpu()


@lru_cache(maxsize=2)
def _loaded_clip(config: ClipConfig, device: str) -> ClipModel:
    """One frozen model serves every metric of a worker."""
    return load_clip(config, device)


class ClipFeatures(Features):
    """Unit vectors in CLIP's joint space."""

    model: ClipModel

    def setup(self) -> None:
        self.model = _loaded_clip(self.config, self.device)

    def weights(self) -> str:
        return clip_weights_fingerprint(self.config)

    def untrained(self) -> bool:
        return self.config.random_seed is not None

    def _embed(self, images_B3HW: Tensor) -> Tensor:
        return self.model.embed_images(images_B3HW)


@lru_cache(maxsize=2)
def _loaded_dino(config: DinoConfig, device: str) -> Dino:
    return load_dino(config, device)


class DinoFeatures(Features):
    """The [CLS] token of a self-supervised transformer, at unit length."""

    model: Dino

    def setup(self) -> None:
        self.model = _loaded_dino(self.config, self.device)

    def weights(self) -> str:
        return dino_weights_fingerprint(self.config)

    def _embed(self, images_B3HW: Tensor) -> Tensor:
        return F.normalize(self.model(images_B3HW).float(), dim=-1)


class OnnxFeatures(Features):
    """The first output of a user's network, of whatever length it is."""

    unit: ClassVar[bool] = False
    model: ScaledEmbedder

    def setup(self) -> None:
        self.model = ScaledEmbedder(self.config, self.device)

    def weights(self) -> str:
        return model_file_hash(self.config.path, SHIPPED)

    def _embed(self, images_B3HW: Tensor) -> Tensor:
        return self.model(whole_image(images_B3HW.float().cpu(), self.model.size)[0])


def features_of(config: FeaturesConfig, models: Models, device: str, batch_size: int) -> Features:
    """The network that a metric is configured to look with, not loaded."""
    if config.dino is not None:
        return DinoFeatures(config.dino, device, batch_size)
    if config.onnx is not None:
        return OnnxFeatures(config.onnx, device, batch_size)
    return ClipFeatures(config.clip or models.clip, device, batch_size)


class Looks(BaseMetric):
    """Base of metrics that see images through :class:`Features`."""

    @abstractmethod
    def _features(self) -> Features:
        """Its network, not loaded."""

    def __init__(self, config: Any, models: Models, device: str = "cpu") -> None:
        super().__init__(config, models, device)
        self.features = self._features()

    def setup(self) -> None:
        self.features.setup()

    def weights(self) -> str:
        return self.features.weights()

    def untrained(self) -> bool:
        return self.features.untrained()

    @property
    def space(self) -> str:
        return self.features.space

    def embed(self, images_B3HW: Tensor) -> Tensor:
        return self.features.embed(images_B3HW)


def mean_cosine(generated_BE: Tensor, references_NE: Tensor) -> Tensor:
    """(B,) mean cosine of unit vectors to every reference that has one. The mean over none is NaN, as it should be."""
    seen_NE = references_NE[~references_NE.isnan().any(1)]
    return (generated_BE @ seen_NE.T).mean(1)
