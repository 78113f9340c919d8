"""Intervals: against numpy by hand, against theory, and where nothing can be said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from e4t_core.metrics._statistics import bootstrap_difference, bootstrap_mean, per_identity


def people(values: np.ndarray) -> dict[str, float]:
    return {f"person {i:04d}": float(v) for i, v in enumerate(values)}


def test_scores_become_one_mean_per_identity() -> None:
    scores = [("b", 1.0), ("a", 0.25), ("b", math.nan), ("b", 2.0), ("lost", math.nan)]
    assert per_identity(scores) == {"a": 0.25, "b": 1.5}


def test_it_is_the_percentile_bootstrap_that_numpy_gives_by_hand() -> None:
    x = np.random.default_rng(3).gamma(2.0, size=40)
    ours = bootstrap_mean(people(x), samples=20_000, seed=1)
    rng = np.random.default_rng(99)
    means = x[rng.integers(0, 40, size=(20_000, 40))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    width = high - low
    assert ours.mean == pytest.approx(x.mean())
    assert ours.identities == 40
    assert ours.low == pytest.approx(low, abs=0.03 * width)
    assert ours.high == pytest.approx(high, abs=0.03 * width)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    trials = [bootstrap_mean(people(rng.normal(1.0, 2.0, 60)), samples=400, confidence=0.9) for _ in range(200)]
    covered = np.mean([t.low <= 1.0 <= t.high for t in trials])
    assert 0.83 <= covered <= 0.95


def test_more_confidence_is_wider() -> None:
    x = people(np.random.default_rng(0).normal(size=30))
    narrow, wide = (bootstrap_mean(x, confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_the_seed_decides_and_the_order_does_not() -> None:
    x = people(np.random.default_rng(0).normal(size=30))
    backwards = dict(reversed(x.items()))
    assert bootstrap_mean(x, seed=5) == bootstrap_mean(backwards, seed=5)
    assert bootstrap_mean(x, seed=5) != bootstrap_mean(x, seed=6)


def test_pairing_finds_a_difference_that_the_spread_of_people_hides() -> None:
    rng = np.random.default_rng(0)
    easy = rng.normal(0, 1, 50)
    theirs = people(easy)
    ours = people(easy + 0.05 + rng.normal(0, 0.05, 50))
    apart = bootstrap_mean(ours), bootstrap_mean(theirs)
    assert apart[0].low < apart[1].high, "unpaired intervals overlap"
    paired = bootstrap_difference(ours, theirs)
    assert 0 < paired.low < paired.mean < paired.high
    assert bootstrap_difference(theirs, ours).high < 0


def test_a_difference_is_over_the_identities_that_both_have() -> None:
    got = bootstrap_difference({"a": 2.0, "b": 3.0, "c": 9.0}, {"a": 1.0, "b": 1.0, "d": 0.0})
    assert (got.mean, got.identities) == (1.5, 2)
    assert (got.low, got.high) == (1.0, 2.0)


@pytest.mark.parametrize("values", [{}, {"only": 0.5}])
def test_below_two_identities_nothing_is_claimed(values: dict[str, float]) -> None:
    got = bootstrap_mean(values)
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    assert got.identities == len(values)
    assert got.mean == 0.5 if values else math.isnan(got.mean)


def test_equal_values_have_no_spread() -> None:
    got = bootstrap_mean({"a": 0.5, "b": 0.5, "c": 0.5})
    assert (got.low, got.mean, got.high) == (0.5, 0.5, 0.5)
