"""KID: how far are a method's images, as a whole, from real ones?"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from e4t_core.metrics._features import Features, FeaturesConfig, Looks, features_of
from e4t_core.metrics.base import MetricConfig, SetMetric, SetMetricConfig, SetScore


class KidConfig(SetMetricConfig):
    """The estimate and its kernel ``(gamma x.y + 1)^degree``.

    Attributes:
        features: the network whose features are compared; the published KID is that of Inception v3 as ``onnx``.
        subsets, subset_size: estimates, and the images that each draws of either side without repetition.
        degree: of the polynomial.
        gamma: ``null`` is 1 / width, as published, and 1 for features of unit length (CLIP, DINO), whose products do
            not grow with the width.
    """

    features: FeaturesConfig = FeaturesConfig()
    subsets: Annotated[int, Field(ge=2)] = 100
    subset_size: Annotated[int, Field(ge=2)] = 1000
    degree: Annotated[int, Field(ge=1)] = 3
    gamma: Annotated[float, Field(gt=0)] | None = None


class Kid(Looks, SetMetric):
    """Kernel Inception Distance (Binkowski et al. 2018; Taming Encoder table 1, which prints it times 1,000): the
    unbiased squared MMD under a polynomial kernel, mean and standard deviation over subsets. It can be below 0."""

    name: ClassVar[str] = "kid"
    title: ClassVar[str] = "KID"
    Config: ClassVar[type[MetricConfig]] = KidConfig
    config: KidConfig

    def _features(self) -> Features:
        return features_of(self.config.features, self.models, self.device, self.config.batch_size)

    def least(self) -> int:
        return self.config.subset_size

    def compare(self, generated_NE: Tensor, real_ME: Tensor, seed: int) -> SetScore:
        size, subsets = self.config.subset_size, self.config.subsets
        facts = {"subsets": subsets, "subset_size": size}
        if min(len(generated_NE), len(real_ME)) < size:
            note = f"needs {size} images of either side (metrics.kid.subset_size)"
            return SetScore(math.nan, math.nan, note, facts)
        rng = np.random.Generator(np.random.Philox(seed))
        found = [self._mmd2(_drawn(generated_NE, size, rng), _drawn(real_ME, size, rng)) for _ in range(subsets)]
        return SetScore(float(np.mean(found)), float(np.std(found)), "", facts)

    def _mmd2(self, x_nE: Tensor, y_nE: Tensor) -> float:
        """``E k(x, x') + E k(y, y') - 2 E k(x, y)`` over distinct pairs (Gretton et al. 2012, eq. 3)."""
        n = len(x_nE)
        k_xx, k_yy, k_xy = self._kernel(x_nE, x_nE), self._kernel(y_nE, y_nE), self._kernel(x_nE, y_nE)
        within = k_xx.sum() - k_xx.trace() + k_yy.sum() - k_yy.trace()
        return float(within / (n * (n - 1)) - 2 * k_xy.mean())

    def _kernel(self, x_nE: Tensor, y_mE: Tensor) -> Tensor:
        gamma = self.config.gamma or (1.0 if self.features.unit else 1 / x_nE.shape[1])
        return (gamma * (x_nE @ y_mE.T) + 1) ** self.config.degree


def _drawn(features_NE: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """(size, E) float64: differences of kernels are far smaller than the kernels."""
    return features_NE[torch.from_numpy(rng.permutation(len(features_NE))[:size])].double()
