"""What jobs rely on, of every metric that is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.metrics import METRICS, BaseMetric, Metric, SetMetric
from tests.metrics.test_clip_metrics import MODELS, images
from tests.support.dino import save_dino

NEEDS: dict[str, Any] = {"identity": {"path": "bundled:identity_tiny"}, "kid": {"subsets": 4, "subset_size": 3}}


NAMES = METRICS.names()
PER_IMAGE = [name for name in NAMES if issubclass(METRICS.get(name), Metric)]
OF_SETS = [name for name in NAMES if issubclass(METRICS.get(name), SetMetric)]


@pytest.fixture(params=NAMES)
def metric(request: pytest.FixtureRequest, tmp_path: Path) -> BaseMetric:
    """Set up, over a model of its own if it needs one."""
    return made(request.param, tmp_path)


def test_every_metric_is_of_one_contract() -> None:
    assert sorted(PER_IMAGE + OF_SETS) == NAMES


def made(name: str, folder: Path, **config: Any) -> BaseMetric:
    cls = METRICS.get(name)
    needs = {"path": str(save_dino(folder / "dino"))} if name == "dino" else NEEDS.get(name, {})
    metric = cls(cls.Config(**{**needs, **config}), MODELS)
    metric.setup()
    return metric


def test_vectors_are_finite_and_do_not_depend_on_the_batch(metric: BaseMetric, tmp_path: Path) -> None:
    vectors_BE = metric.embed(images(5, 1))
    assert vectors_BE.shape[0] == 5
    assert (vectors_BE.ndim, vectors_BE.dtype, vectors_BE.device.type) == (2, torch.float32, "cpu")
    assert vectors_BE.isfinite().all()
    assert (vectors_BE[0] - vectors_BE[1]).abs().max() > 1e-3, "images are told apart"
    single = made(metric.name, tmp_path, batch_size=1)
    torch.testing.assert_close(single.embed(images(5, 1)), vectors_BE, atol=1e-5, rtol=1e-5)


def test_what_judges_is_named(metric: BaseMetric, tmp_path: Path) -> None:
    assert metric.title
    again = made(metric.name, tmp_path)
    assert metric.weights() == again.weights() != ""
    assert metric.space == again.space != ""
    assert made(metric.name, tmp_path, device="cpu", batch_size=1).space == again.space, "resources change nothing"


@pytest.mark.parametrize("metric", PER_IMAGE, indirect=True)
def test_one_score_per_image(metric: Metric) -> None:
    scores = metric(images(3, 1), images(2, 2), ["a", "b", "c"])
    assert (scores.shape, scores.dtype) == ((3,), torch.float32)
    assert scores.isfinite().all()
    assert scores.abs().max() <= 2
    assert metric.higher_is_better


@pytest.mark.parametrize("metric", PER_IMAGE, indirect=True)
def test_images_that_cannot_be_seen_are_nan_and_leave_the_others_alone(metric: Metric) -> None:
    generated, references = metric.embed(images(3, 1)), metric.embed(images(3, 2))
    blind = generated.clone()
    blind[1] = torch.nan
    before, after = compared(metric, generated, references), compared(metric, blind, references)
    assert after[1].isnan()
    assert after[[0, 2]].isfinite().all()
    if metric.references != "siblings":
        assert torch.equal(after[[0, 2]], before[[0, 2]])
        fewer = torch.cat([references[:2], torch.full_like(references[:1], torch.nan)])
        torch.testing.assert_close(
            compared(metric, generated, fewer), compared(metric, generated, references[:2]), atol=1e-6, rtol=0
        )


def compared(metric: Metric, generated: Tensor, references: Tensor) -> Tensor:
    return metric.compare(generated, generated if metric.references == "siblings" else references, ["a", "b", "c"])


@pytest.mark.parametrize("metric", OF_SETS, indirect=True)
def test_a_set_is_nearer_to_itself_than_to_another(metric: SetMetric) -> None:
    real, others = metric.embed(images(12, 1)), metric.embed(images(12, 2).mul(0.2).add(0.6))
    same, apart = metric.compare(real, real, seed=1), metric.compare(others, real, seed=1)
    assert same.mean < apart.mean
    assert apart.std > 0
    assert metric.compare(others, real, seed=1) == apart
    few = metric.compare(others[: metric.least() - 1], real, seed=1)
    assert few.note
    assert few.mean != few.mean
