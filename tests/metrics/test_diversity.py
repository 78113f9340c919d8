"""Diversity: a mean over images that is the mean over pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_distances

from e4t_core.metrics.diversity import Diversity, DiversityConfig
from tests.metrics.test_clip_metrics import MODELS, images


def ready() -> Diversity:
    metric = Diversity(DiversityConfig(), MODELS)
    metric.setup()
    return metric


def test_its_mean_is_the_mean_pairwise_distance() -> None:
    metric, pool = ready(), images(5, 1)
    distances = cosine_distances(metric.embed(pool).numpy())
    want = np.mean([distances[i, j] for i, j in combinations(range(5), 2)])
    scores = metric(pool, pool[:0], [""] * 5)
    assert float(scores.mean()) == pytest.approx(float(want), abs=1e-5)
    assert scores.std() > 0, "each image has its own part in it"


def test_copies_have_none_and_one_alone_has_no_score() -> None:
    metric = ready()
    assert metric(images(1, 1).repeat(3, 1, 1, 1), images(1, 1)[:0], [""] * 3).abs().max() < 1e-5
    assert metric(images(1, 1), images(1, 1)[:0], [""]).isnan().all()


def test_what_cannot_be_seen_is_left_out_of_its_siblings() -> None:
    metric = ready()
    seen = metric.embed(images(3, 1))
    blind = torch.cat([seen, torch.full_like(seen[:1], torch.nan)])
    torch.testing.assert_close(metric.compare(blind, blind, [""] * 4)[:3], metric.compare(seen, seen, [""] * 3))
