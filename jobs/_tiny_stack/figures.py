"""The arithmetic of the figures in the model card."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


def roc_auc(right: Floats, wrong: Floats) -> float:
    """Area under the ROC curve: the chance that a right pair scores above a wrong one, ties counting half.

    ``(R - n (n + 1) / 2) / (n m)``, with ``R`` the sum of the ``n`` right ones' ranks among all ``n + m``
    (Mann & Whitney 1947). NaN without right or wrong ones.
    """
    n, m = len(right), len(wrong)
    if not n or not m:
        return float("nan")
    ranks = rankdata(np.concatenate([right, wrong]))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def verification_auc(embeddings_NE: Floats, who: Sequence[int], kinds: Sequence[str], across: bool) -> float:
    """:func:`roc_auc` of cosines between pictures of the same identity and of different ones.

    Args:
        embeddings_NE: unit vectors.
        who: identity of each picture; ``kinds``: its style.
        across: count only pairs of different styles, else only pairs of the same style.
    """
    cosines = embeddings_NE @ embeddings_NE.T
    first, second = np.triu_indices(len(who), 1)
    people, styles = np.asarray(who), np.asarray(kinds)
    counted = (styles[first] != styles[second]) == across
    same = people[first] == people[second]
    values = cosines[first, second]
    return roc_auc(values[counted & same], values[counted & ~same])


def accuracy(named: Sequence[str], right: Sequence[str]) -> float:
    """Share of right names."""
    return float(np.mean([a == b for a, b in zip(named, right, strict=True)]))


def psnr(x: Floats, y: Floats) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1], from the mean squared error over all of them."""
    error = float(np.mean((x.astype(np.float64) - y.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else float(-10 * np.log10(error))
