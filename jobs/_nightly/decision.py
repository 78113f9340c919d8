"""Did anything get worse? One test over all figures of a night together, and a size below which nobody cares.

A figure (a score of a method) is compared identity by identity with the night before: d_i = now_i - before_i. Where the
two nights differ only in the noise that was drawn, the sign of d_i is a coin toss, whatever its distribution. So the
paired differences are resampled over identities with random signs (the wild bootstrap with Rademacher weights; for a
single figure it is the sign-flip test of paired samples), with one sign an identity in *all* figures, which keeps
their correlation. The statistic of figure m is

    z_m = sum_i d_im / ||d_m||,

of variance 1 under the resampling, hence comparable between figures, and monotone in Student's paired t. A figure moved
if |z_m| is beyond the 1 - alpha quantile of max_m |z*_m|: Westfall and Young's single-step max-T. That holds the
family-wise rate at alpha for any number of figures however they are correlated (Holm would pay for figures that say the
same thing), exactly and for any number of identities, where resampling with replacement is too narrow below some dozens
of them and breaks down on figures that are nearly always 0 (images in which no face was found). It is two-sided: gains
are told by the same test, and a false alarm, which is a drop, comes in about alpha / 2 of the nights.

A night that was lucky makes the next one look like a drop. So what moved has to be confirmed (:func:`confirm`), by the
same test against the mean of the good nights since the score last moved: a drop that is real is plainer against several
nights than against one, and the luck of one is not in their mean.

The interval that goes with a difference is the ordinary paired bootstrap's of that figure alone, as in reports.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from e4t_core.metrics._statistics import bootstrap_difference

Verdict = Literal["drop", "gain", "same", "unconfirmed", "unknown"]
Array = NDArray[np.floating[Any]]
_ROWS = 256
"""Resamples in memory at once."""
_TIE = 1e-9
"""Resamples that give the statistic itself, up to rounding, count as reaching it."""


@dataclass(frozen=True)
class Figure:
    """One score of one method on two nights.

    Attributes:
        method, metric: what it is of.
        title: what people call it.
        before, now: mean score by identity, in the metric's unit. Identities that only one night has are left out.
        effect: the smallest change that matters, in the metric's unit.
        higher_is_better: which direction is a drop.
    """

    method: str
    metric: str
    title: str
    before: Mapping[str, float]
    now: Mapping[str, float]
    effect: float
    higher_is_better: bool = True


@dataclass(frozen=True)
class Finding:
    """What became of a figure.

    Attributes:
        before, now: means over the identities that both nights have; None if there is none.
        change: ``now - before``.
        low, high: paired bootstrap interval of ``change``, of this figure alone; None if nothing can be said.
        p: family-wise, over all figures of the night; None if ``unknown``.
        identities: how many are paired.
        verdict: ``drop`` or ``gain`` if it moved, significantly and by more than ``effect``; ``unconfirmed`` if it did
            so from the night before and not from several; ``unknown`` where fewer identities than :func:`fewest` are
            paired.
        usual: mean over several good nights before, where there are several, and over the identities of all of them.
    """

    method: str
    metric: str
    title: str
    before: float | None
    now: float | None
    change: float | None
    low: float | None
    high: float | None
    p: float | None
    effect: float
    identities: int
    verdict: Verdict
    usual: float | None = None


def fewest(alpha: float) -> int:
    """Identities below which no difference, however large, is significant: n signs have 2^(n - 1) distinct |z|."""
    return 1 + math.ceil(math.log2(1 / alpha))


def decide(figures: Sequence[Figure], *, alpha: float, samples: int, seed: int = 0) -> list[Finding]:
    """Judge all figures of a night together, in their order.

    Args:
        alpha: family-wise error rate over ``figures``.
        samples: resamples; all 2^(n - 1) patterns of signs are used instead where they are no more than that.
        seed: of the resampling, so that a night has one verdict.
    """
    pairs = [_paired(figure) for figure in figures]
    tested = [i for i, pair in enumerate(pairs) if len(pair) >= fewest(alpha)]
    p = dict(zip(tested, _p_values([pairs[i] for i in tested], samples, seed), strict=True))
    return [_finding(figure, pairs[i], p.get(i), alpha, samples, seed) for i, figure in enumerate(figures)]


def confirm(findings: Sequence[Finding], usual: Sequence[Finding]) -> list[Finding]:
    """Findings against one night beside those of the same figures against the mean of several, of such as have several.

    A drop or gain stays one if the mean says the same, or cannot say: too few identities are in all of those nights.
    """
    against = {(finding.method, finding.metric): finding for finding in usual}
    return [_confirmed(finding, against.get((finding.method, finding.metric))) for finding in findings]


def _confirmed(finding: Finding, usual: Finding | None) -> Finding:
    if usual is None:
        return finding
    moved = finding.verdict in ("drop", "gain")
    stands = usual.verdict in (finding.verdict, "unknown")
    return replace(finding, usual=usual.before, verdict="unconfirmed" if moved and not stands else finding.verdict)


def _paired(figure: Figure) -> dict[str, float]:
    return {who: figure.now[who] - figure.before[who] for who in sorted(figure.now.keys() & figure.before.keys())}


def _p_values(pairs: Sequence[Mapping[str, float]], samples: int, seed: int) -> list[float]:
    """Of every figure the share of resamples in which the largest |z| of all figures reaches its own."""
    if not pairs:
        return []
    d_NM = _scaled(pairs)
    z_M = np.abs(d_NM.sum(axis=0))
    reached_M, drawn = np.zeros(len(pairs)), 0
    exact = 2 ** (len(d_NM) - 1) <= samples
    for signs_BN in _all_signs(len(d_NM)) if exact else _some_signs(len(d_NM), samples, seed):
        largest_B = np.abs(signs_BN @ d_NM).max(axis=1)
        reached_M += (largest_B[:, None] >= z_M - _TIE).sum(axis=0)
        drawn += len(signs_BN)
    # what was observed is one of all patterns already; to drawn ones it is added (Davison and Hinkley, 4.11)
    return list(reached_M / drawn if exact else (1 + reached_M) / (1 + drawn))


def _scaled(pairs: Sequence[Mapping[str, float]]) -> Array:
    """Differences by identity and figure, each figure's of length 1; 0 where a figure lacks the identity."""
    people = sorted({who for pair in pairs for who in pair})
    d_NM = np.array([[pair.get(who, 0.0) for pair in pairs] for who in people])
    length_M = np.linalg.norm(d_NM, axis=0)
    return d_NM / np.where(length_M > 0, length_M, 1.0)


def _all_signs(n: int) -> Iterator[Array]:
    """Every pattern of n signs, up to the sign of the whole."""
    patterns = np.arange(2 ** (n - 1))
    for at in range(0, len(patterns), _ROWS):
        bits = patterns[at : at + _ROWS, None] >> np.arange(n) & 1
        yield 1.0 - 2.0 * bits


def _some_signs(n: int, samples: int, seed: int) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    for at in range(0, samples, _ROWS):
        yield 1.0 - 2.0 * rng.integers(0, 2, (min(_ROWS, samples - at), n))


def _finding(
    figure: Figure, pair: Mapping[str, float], p: float | None, alpha: float, samples: int, seed: int
) -> Finding:
    gap = bootstrap_difference(figure.now, figure.before, samples=samples, confidence=1 - alpha, seed=seed)
    return Finding(
        figure.method,
        figure.metric,
        figure.title,
        _mean([figure.before[who] for who in pair]),
        _mean([figure.now[who] for who in pair]),
        _finite(gap.mean),
        _finite(gap.low),
        _finite(gap.high),
        p,
        figure.effect,
        len(pair),
        _verdict(gap.mean if figure.higher_is_better else -gap.mean, p, alpha, figure.effect),
    )


def _verdict(better: float, p: float | None, alpha: float, effect: float) -> Verdict:
    if p is None:
        return "unknown"
    if p > alpha or abs(better) <= effect:
        return "same"
    return "gain" if better > 0 else "drop"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
