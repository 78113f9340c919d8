"""Histograms of labels: values that are named, a tail that is counted, ranges of numbers."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

_ROWS_AT_ONCE = 65_536
_BINS = 30


def labels(column: pa.ChunkedArray, top: int) -> dict[str, Any]:
    """Label -> how its values are spread; ``identity``, which the index has a column for, is left out.

    Args:
        column: ``labels_json`` of an index.
        top: most values that are named. Numbers of more values than that are a histogram.

    Returns:
        ``samples`` that have the label, ``distinct`` values and either what :func:`ranked` says, every element of a
        list counted by itself, or ``low``, ``high``, ``mean`` and ``histogram`` (``edges``, ``counts``).
    """
    values: defaultdict[str, Counter[Any]] = defaultdict(Counter)
    samples = Counter[str]()
    for text in _texts(column):
        for name, value in json.loads(text).items():
            if name != "identity" and value is not None:
                samples[name] += 1
                values[name].update(_plain(v) for v in (value if isinstance(value, list) else [value]))
    return {name: {"samples": samples[name], **_spread(values[name], top)} for name in sorted(values)}


def ranked(counts: Mapping[str, int], top: int) -> dict[str, Any]:
    """``largest``: ``[value, samples]``, most frequent first; ``others``: ``values`` and ``samples`` of the rest."""
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = order[top:]
    return {
        "largest": [[value, n] for value, n in order[:top]],
        "others": {"values": len(rest), "samples": sum(n for _, n in rest)},
    }


def _texts(column: pa.ChunkedArray) -> Iterator[str]:
    for at in range(0, len(column), _ROWS_AT_ONCE):
        yield from column.slice(at, _ROWS_AT_ONCE).to_pylist()


def _plain(value: Any) -> str | float:
    """Numbers as they are, so that they can be ordered; the rest as text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _spread(counts: Counter[Any], top: int) -> dict[str, Any]:
    distinct = {"distinct": len(counts)}
    if len(counts) <= top or any(isinstance(value, str) for value in counts):
        named = Counter[str]()
        for value, n in counts.items():
            named[value if isinstance(value, str) else str(value)] += n
        return {**distinct, **ranked(named, top)}
    values, weights = np.array(list(counts), float), np.array(list(counts.values()))
    heights, edges = np.histogram(values, _BINS, weights=weights)
    return {
        **distinct,
        "low": float(values.min()),
        "high": float(values.max()),
        "mean": float(np.average(values, weights=weights)),
        "histogram": {"edges": edges.tolist(), "counts": heights.astype(int).tolist()},
    }
