"""KID against torchmetrics, and against the squared distance of means that a linear kernel must give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

from e4t_core.config import validate
from e4t_core.errors import UsageError
from e4t_core.metrics.kid import Kid, KidConfig
from tests.metrics.test_clip_metrics import MODELS, images
from tests.metrics.test_identity import mean_colour


def kid(**config: object) -> Kid:
    return Kid(KidConfig(**config), MODELS)


def features(count: int, shift: float, seed: int, width: int = 16) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


class Passed(nn.Module):
    """Images that are their own features, for torchmetrics."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :16].double()


def test_one_subset_is_torchmetrics_estimate() -> None:
    x, y = features(60, 0.0, 1), features(60, 0.3, 2)
    want = poly_mmd(x.double(), y.double(), degree=3, gamma=1 / 16, coef=1.0)
    assert kid(gamma=1 / 16)._mmd2(x.double(), y.double()) == pytest.approx(float(want), rel=1e-9)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_mean_and_spread_over_subsets_are_torchmetrics() -> None:
    """Both draw subsets of their own, so what must agree is the distribution that they draw from."""
    x, y = features(200, 0.0, 1), features(200, 0.25, 2)
    ours = kid(gamma=1 / 16, subsets=400, subset_size=40).compare(x, y, seed=0)
    theirs = KernelInceptionDistance(feature=Passed(), subsets=400, subset_size=40)
    for part, real in ((x, False), (y, True)):
        theirs.update(part.repeat(1, 3).view(-1, 3, 4, 4), real=real)
    torch.manual_seed(0)
    mean, std = (float(value) for value in theirs.compute())
    error = std / 400**0.5
    assert ours.mean == pytest.approx(mean, abs=5 * error)
    assert ours.std == pytest.approx(std, rel=0.2)
    assert ours.facts == {"subsets": 400, "subset_size": 40}


def test_a_linear_kernel_gives_the_squared_distance_of_means() -> None:
    """Less what the means of finite samples are apart by chance: the traces of their covariances over n."""
    x, y = features(300, 0.0, 1, 4), features(300, 0.5, 2, 4)
    got = kid(degree=1, gamma=1.0, subsets=2, subset_size=300).compare(x, y, seed=0)
    chance = (x.var(0).sum() + y.var(0).sum()) / 300
    assert got.mean == pytest.approx(float((x.mean(0) - y.mean(0)).square().sum() - chance), rel=1e-5)
    assert got.std == pytest.approx(0, abs=1e-9)


def test_it_is_unbiased_where_there_is_no_difference() -> None:
    pool = features(2000, 0.0, 1)
    got = kid(gamma=1 / 16, subsets=300, subset_size=50).compare(pool[:1000], pool[1000:], seed=0)
    assert abs(got.mean) < 4 * got.std / np.sqrt(300) + 0.02


def test_the_kernel_is_the_published_one_for_raw_features_and_one_of_cosines_for_unit_ones(tmp_path: Path) -> None:
    onnx = kid(features={"onnx": {"path": mean_colour(tmp_path / "m.onnx"), "size": (8, 8)}})
    x = features(3, 0.0, 1, 4).double()
    assert torch.equal(onnx._kernel(x, x), (x @ x.T / 4 + 1) ** 3)
    assert torch.equal(kid()._kernel(x, x), (x @ x.T + 1) ** 3)
    assert torch.equal(kid(gamma=0.5, degree=2)._kernel(x, x), (x @ x.T / 2 + 1) ** 2)


def test_features_are_pluggable(tmp_path: Path) -> None:
    onnx = {"path": mean_colour(tmp_path / "m.onnx")}
    section = {"features": {"onnx": onnx}}
    metric = Kid(validate(KidConfig, section, "metrics.kid"), MODELS)
    metric.setup()
    assert metric.embed(images(3, 1)).shape == (3, 3)
    assert metric.space != kid().space
    with pytest.raises(UsageError, match="clip and onnx are both given"):
        validate(KidConfig, {"features": {"onnx": onnx, "clip": {"path": "x"}}}, "metrics.kid")
