"""Which images of a store look alike, by the perceptual hashes that ``ingest`` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e4t_core.errors import DataError, UsageError
from e4t_core.schema import Sample, decode_json
from e4t_core.storage import Store
from pipelines.loader import ShardDataset

MAX_DISTANCE = 8
"""Unrelated images differ in about 32 of the 64 bits; beyond this, chance alone makes pairs among a million."""
_BITS = 64
_COLUMN = "ingest"
_AT_ONCE = 64
_READERS = 4


@dataclass(frozen=True)
class _Hashed:
    """Every sample's id, hash and size of the original in pixels."""

    ids: list[str]
    hashes_N: NDArray[np.uint64]
    pixels_N: NDArray[np.int64]


def near_duplicates(store: Store, version: int | None = None, distance: int = 4) -> dict[str, Any]:
    """Groups of samples whose hashes differ in at most ``distance`` of 64 bits, as JSON values.

    Samples are in one group if a chain of such pairs leads from one to the other. Quarantined ones are left out, since
    no reader sees them. The ingest column is read whole, a few images at a time; what stays in memory is an id and two
    numbers a sample.

    Args:
        version: of the manifest; the newest if None.

    Returns:
        ``uri``, ``version``, ``distance``, ``samples`` that were compared, ``groups`` of two or more ids, in each first
        the one whose original has most pixels and then the others in order, and how many others there are:
        ``would_go``.

    Raises:
        UsageError: no such version, no column of images, or a distance that says nothing.
        DataError: nothing is published there, the column has no hashes, or it is damaged.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise UsageError(f"distance {distance} does not fit: 0 (the same hash) to {MAX_DISTANCE} of {_BITS} bits")
    dataset = ShardDataset(store, version)
    dataset.check_columns([_COLUMN])
    found = _read(dataset)
    groups = sorted(_in_order(found, rows) for rows in _alike(found.hashes_N, distance))
    return {
        "uri": store.uri,
        "version": dataset.version,
        "distance": distance,
        "samples": len(found.ids),
        "groups": groups,
        "would_go": sum(len(ids) - 1 for ids in groups),
    }


def to_drop(report: dict[str, Any]) -> list[str]:
    """All but the first of each group of :func:`near_duplicates`, in order."""
    return sorted(sample_id for ids in report["groups"] for sample_id in ids[1:])


def _in_order(found: _Hashed, rows: NDArray[np.int64]) -> list[str]:
    first, *others = sorted(rows.tolist(), key=lambda row: (-found.pixels_N[row], found.ids[row]))
    return [found.ids[first], *sorted(found.ids[row] for row in others)]


# --- reading


def _read(dataset: ShardDataset) -> _Hashed:
    with ThreadPoolExecutor(_READERS) as pool:
        facts = [fact for part in pool.map(partial(_shard, dataset), dataset.shard_rows().values()) for fact in part]
    return _Hashed(
        [sample_id for sample_id, _, _ in facts],
        np.array([value for _, value, _ in facts], np.uint64),
        np.array([pixels for _, _, pixels in facts], np.int64),
    )


def _shard(dataset: ShardDataset, rows: range) -> list[tuple[str, int, int]]:
    """(id, hash, pixels of the original) of some samples; their images are let go as soon as they are read."""
    facts = []
    for at in range(0, len(rows), _AT_ONCE):
        facts += [_facts(dataset, sample) for sample in dataset.samples(rows[at : at + _AT_ONCE], [_COLUMN])]
    return facts


def _facts(dataset: ShardDataset, sample: Sample) -> tuple[str, int, int]:
    meta = decode_json(sample["meta.json"], f"meta.json of '{sample['__id__']}'")
    if "phash" not in meta:
        raise DataError(
            f"'{sample['__id__']}' in {dataset.store.uri} version {dataset.version} has no perceptual hash; run "
            "preprocess with stages.ingest.phash=true, which makes the column anew"
        )
    return sample["__id__"], int(meta["phash"], 16), meta["width"] * meta["height"]


# --- comparing


def _alike(hashes_N: NDArray[np.uint64], distance: int) -> Iterator[NDArray[np.int64]]:
    """Rows of each group of two or more."""
    hashes_U, which_N = np.unique(hashes_N, return_inverse=True)
    group_N = _groups(hashes_U, distance)[which_N]
    order = np.argsort(group_N, kind="stable")
    starts = np.unique(group_N[order], return_index=True)[1]
    return (rows for rows in np.split(order, starts[1:]) if len(rows) > 1)


def _groups(hashes_U: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    """(U,) the same number for hashes of one group."""
    parent_U = np.arange(len(hashes_U))
    for mask in _masks(distance):
        for a, b in _pairs(hashes_U & mask):
            near = np.bitwise_count(hashes_U[a] ^ hashes_U[b]) <= distance
            _join(parent_U, a[near], b[near])
        parent_U = _roots(parent_U)
    return parent_U


def _masks(distance: int) -> Iterator[np.uint64]:
    """Bits of which near hashes have those of at least one mask in common.

    A bit in which they differ spoils one band, so of ``distance + agreeing`` bands they agree in ``agreeing``. Those
    are so many that together they hold 16 bits or more, which tell most of a million other hashes apart.
    """
    agreeing = max(1, -(-distance // 3))
    edges = np.linspace(0, _BITS, distance + agreeing + 1).round().astype(int).tolist()
    bands = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return (np.uint64(sum(chosen)) for chosen in combinations(bands, agreeing))


def _pairs(keys_U: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of rows with the same key, many at a time but never more than there are rows."""
    order = np.argsort(keys_U, kind="stable")
    sorted_U = keys_U[order]
    at, step = np.arange(len(order)), 1
    while True:
        at = at[at + step < len(order)]
        at = at[sorted_U[at] == sorted_U[at + step]]
        if not len(at):
            return
        yield order[at], order[at + step]
        step += 1


def _join(parent_U: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64]) -> None:
    for one, other in zip(a.tolist(), b.tolist(), strict=True):
        low, high = sorted((_root(parent_U, one), _root(parent_U, other)))
        parent_U[high] = low


def _root(parent_U: NDArray[np.int64], row: int) -> int:
    while (parent := int(parent_U[row])) != row:
        parent_U[row] = row = int(parent_U[parent])
    return row


def _roots(parent_U: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of every row."""
    while not np.array_equal(parent_U, above_U := parent_U[parent_U]):
        parent_U = above_U
    return parent_U
