"""Intervals over identities. People differ more than images of one person, so the identity is what is resampled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

_BATCH = 128
"""Resamples drawn at once: bounds memory at 128 rows of all identities."""


@dataclass(frozen=True)
class Interval:
    """A mean over identities and its percentile bootstrap interval.

    Attributes:
        mean: NaN if there is no identity.
        low, high: bounds; NaN below two identities, of which nothing can be said.
        identities: how many it is over.
    """

    mean: float
    low: float
    high: float
    identities: int


def per_identity(scores: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Mean score of each identity, by name.

    NaN (an image that could not be scored) is left out; an identity of which nothing could be scored is left out
    whole, so ``len`` of the result against the number of identities tells how many were lost.
    """
    found: dict[str, list[float]] = {}
    for identity, score in scores:
        if not math.isnan(score):
            found.setdefault(identity, []).append(score)
    return {identity: float(np.mean(found[identity])) for identity in sorted(found)}


def bootstrap_mean(
    values: Mapping[str, float], *, samples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Mean of one value per identity, with its interval.

    Args:
        values: by identity, as :func:`per_identity` gives them; their order does not matter.
        samples: resamples of the identities.
        confidence: two-sided level.
        seed: of the resampling.
    """
    x = np.array([values[identity] for identity in sorted(values)], dtype=np.float64)
    if len(x) < 2:
        return Interval(float(x[0]) if len(x) else math.nan, math.nan, math.nan, len(x))
    result = bootstrap(
        (x,),
        np.mean,
        n_resamples=samples,
        confidence_level=confidence,
        method="percentile",
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(float(x.mean()), float(low), float(high), len(x))


def bootstrap_difference(
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    *,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of ``ours - theirs`` over the identities that both have, paired: an interval without 0 is a difference."""
    paired = {identity: ours[identity] - theirs[identity] for identity in ours.keys() & theirs.keys()}
    return bootstrap_mean(paired, samples=samples, confidence=confidence, seed=seed)
