"""Who asked to be forgotten: digests of ids that no plan may take again, and the versions withdrawn for it.

Digests, not ids: the list itself must not be one more place that names a person.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Set
from typing import Any

import numpy as np
import pyarrow as pa

from e4t_core.record import canonical_json
from e4t_core.storage import Store
from pipelines.shards import layout

Digests = Set[str]


def digest(sample_id: str) -> str:
    """How an id is remembered."""
    return hashlib.sha256(sample_id.encode()).hexdigest()


def digests(store: Store) -> Digests:
    """Of every id that was forgotten."""
    lists = (store.read_json(layout.numbered_key(layout.FORGOTTEN, n)) for n in layout.numbers(store, layout.FORGOTTEN))
    return frozenset(name for found in lists for name in found["digests"])


def remember(store: Store, ids: Iterable[str]) -> Digests:
    """Add ids to the list; from then on no plan takes them. Returns the whole list."""
    known = digests(store)
    new = sorted({digest(sample_id) for sample_id in ids} - known)
    text = canonical_json({"digests": new, "created": time.time()})
    while new:
        numbers = layout.numbers(store, layout.FORGOTTEN)
        if store.create(layout.numbered_key(layout.FORGOTTEN, max(numbers, default=0) + 1), text):
            break
    return known | set(new)


def among(ids: pa.ChunkedArray, gone: Digests) -> np.ndarray:
    """(N,) bool: which of the ids were forgotten."""
    if not gone:
        return np.zeros(len(ids), bool)
    return np.fromiter((digest(sample_id) in gone for sample_id in ids.to_pylist()), bool, len(ids))


def without(table: pa.Table, gone: Digests) -> pa.Table:
    """The rows whose ``id`` was not forgotten."""
    return table.filter(pa.array(~among(table["id"], gone))) if gone else table


def withdraw(store: Store, version: int, use: int, samples: int) -> None:
    """Say that readers must take version ``use`` instead; ``gc`` may then delete the old one."""
    mark = {"use": use, "samples": samples, "created": time.time()}
    store.create(layout.numbered_key(layout.WITHDRAWN, version), canonical_json(mark))


def withdrawn(store: Store) -> list[int]:
    """Versions that may not be read any more."""
    return layout.numbers(store, layout.WITHDRAWN)


def why_withdrawn(store: Store, version: int) -> dict[str, Any] | None:
    """The mark of a version that was withdrawn: ``use``, ``samples``; None of one that was not."""
    try:
        return dict(store.read_json(layout.numbered_key(layout.WITHDRAWN, version)))
    except FileNotFoundError:
        return None
