"""Manifests: numbered versions of the dataset, published when every planned sample is accounted for in every column.

A manifest names one commit per stage and shard, and an index (parquet, a row per planned sample) that says where each
sample lies in each column's tar. Readers open manifests only, so nothing half-written can be seen.
"""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from e4t_core.errors import DataError, UsageError
from e4t_core.record import content_hash
from e4t_core.record import versions as installed
from e4t_core.schema import SCHEMA_VERSION
from e4t_core.storage import Store
from pipelines.shards import forgotten, layout
from pipelines.shards.commit import ShardRef, all_committed
from pipelines.shards.plan import Plan
from pipelines.stages.base import Stage

Refs = Mapping[str, Mapping[int, ShardRef]]
"""stage -> shard -> what is committed."""


@dataclass(frozen=True)
class Manifest:
    """One version of the dataset.

    Attributes:
        version: its number.
        head: the JSON as stored.
    """

    version: int
    head: Mapping[str, Any]

    @property
    def stages(self) -> list[str]:
        """Names of the columns, in the order they were made."""
        return list(self.head["stages"])

    def refs(self, stage: str) -> dict[int, ShardRef]:
        """Shard number -> commit facts of one column."""
        shards = self.head["stages"].get(stage, {}).get("shards", {})
        return {int(number): ShardRef.from_dict(fields) for number, fields in shards.items()}


def load_manifest(store: Store, version: int | None = None) -> Manifest:
    """A manifest; the newest if ``version`` is None.

    Raises:
        DataError: the store has none, it was withdrawn, or it needs a newer e4t.
        UsageError: no such version.
    """
    found = latest(store) if version is None else None
    numbers = [found.version] if found else layout.numbers(store, layout.MANIFESTS)
    if not numbers:
        raise DataError(f"{store.uri} has no manifest; `python -m jobs preprocess --out {store.uri}` makes one")
    if version is not None and (mark := forgotten.why_withdrawn(store, version)):
        raise DataError(
            f"{store.uri} version {version} was withdrawn: {mark['samples']} of its samples were forgotten; use "
            f"version {mark['use']} or a later one"
        )
    if version is not None and version not in numbers:
        raise UsageError(f"{store.uri} has no version {version}; it has {', '.join(map(str, versions(store)))}")
    return found or _read(store, version or numbers[-1])


def versions(store: Store) -> list[int]:
    """Numbers of the versions that can be read, ascending."""
    gone = set(forgotten.withdrawn(store))
    return [number for number in layout.numbers(store, layout.MANIFESTS) if number not in gone]


def latest(store: Store) -> Manifest | None:
    """The newest manifest, or None."""
    versions = layout.numbers(store, layout.MANIFESTS)
    return _read(store, versions[-1]) if versions else None


def _read(store: Store, version: int) -> Manifest:
    head = store.read_json(layout.numbered_key(layout.MANIFESTS, version))
    if head["schema"] > SCHEMA_VERSION:
        raise DataError(
            f"{store.uri} version {version} has shard schema {head['schema']}; this e4t reads up to {SCHEMA_VERSION}: "
            f"upgrade to e4t {head.get('e4t', '(the one that wrote it)')} or newer"
        )
    return Manifest(version, head)


def load_index(store: Store, manifest: Manifest) -> pa.Table:
    """A manifest's index: ``id, key, shard, identity, labels_json, status, reason, message`` and, per column,
    ``<stage>.offset``, ``<stage>.size``, ``<stage>.crc32`` (null where the sample has no output).

    Raises:
        DataError: it is gone or damaged.
    """
    entry = manifest.head["index"]
    try:
        data = store.read(entry["key"])
    except FileNotFoundError as error:
        raise DataError(f"{store.url(entry['key'])} is missing, and version {manifest.version} needs it") from error
    if content_hash(data) != entry["sha256"]:
        raise DataError(f"{store.url(entry['key'])} is damaged: its SHA-256 is not {entry['sha256']}")
    return pq.read_table(io.BytesIO(data))


def publish(
    store: Store, plan: Plan, stages: Sequence[tuple[Stage, Mapping[str, Any]]], refs: Refs, recipe: Mapping[str, Any]
) -> Manifest:
    """Publish the version that ``refs`` make up, unless the newest one is the same.

    Args:
        stages: each stage and its identity.
        refs: for every stage a commit of every planned shard.
    """
    facts = {
        stage.name: {**identity, "reads": list(stage.reads), "writes": list(stage.writes)} for stage, identity in stages
    }
    described = describe(facts, refs)
    while True:
        newest = latest(store)
        if newest and newest.head["stages"] == described and newest.head["plan"]["items"] == plan.items_key:
            return newest
        _refuse_forgotten(store, plan)
        if manifest := propose(store, newest, plan, described, refs, recipe):
            return manifest


def describe(stages: Mapping[str, Mapping[str, Any]], refs: Refs) -> dict[str, Any]:
    """A manifest's ``stages``, as they will be read back: each one's identity, what it reads and writes, its shards."""
    described = {
        stage: {**facts, "shards": {f"{number:06d}": refs[stage][number].to_dict() for number in sorted(refs[stage])}}
        for stage, facts in stages.items()
    }
    return dict(json.loads(json.dumps(described)))


def propose(
    store: Store,
    newest: Manifest | None,
    plan: Plan,
    described: Mapping[str, Mapping[str, Any]],
    refs: Refs,
    recipe: Mapping[str, Any],
) -> Manifest | None:
    """Publish the version that follows ``newest``; None if somebody else's follows it already.

    Args:
        described: see :func:`describe`.
        refs: for every stage a commit of every planned shard.
    """
    manifest = _compose(store, plan, described, refs, recipe, newest.version + 1 if newest else 1)
    data = (json.dumps(manifest.head, indent=None, separators=(",", ":")) + "\n").encode()
    return manifest if store.create(layout.numbered_key(layout.MANIFESTS, manifest.version), data) else None


def _refuse_forgotten(store: Store, plan: Plan) -> None:
    gone = int(forgotten.among(plan.table["id"], forgotten.digests(store)).sum())
    if gone:
        raise DataError(
            f"{gone} of the planned samples of {store.uri} were forgotten while this ran; what was made is kept: run "
            "the same command again"
        )


def _compose(
    store: Store, plan: Plan, described: Mapping[str, Any], refs: Refs, recipe: Mapping[str, Any], version: int
) -> Manifest:
    table = build_index(store, plan, refs)
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    data = out.getvalue()
    index = {"key": f"{layout.INDEXES}/{content_hash(data, 16)}.parquet", "sha256": content_hash(data)}
    store.put(index["key"], data)
    reasons = Counter(r for r in table["reason"].to_pylist() if r is not None)
    return Manifest(
        version,
        {
            "version": version,
            "schema": SCHEMA_VERSION,
            **installed("e4t"),
            "created": time.time(),
            "planned": table.num_rows,
            "samples": table.num_rows - reasons.total(),
            "quarantined": reasons.total(),
            "reasons": dict(sorted(reasons.items())),
            "plan": {"version": plan.version, "items": plan.items_key},
            "index": index,
            "stages": described,
            "recipe": recipe,
        },
    )


def build_index(store: Store, plan: Plan, refs: Refs) -> pa.Table:
    """One row per planned sample, in plan order; see :func:`load_index`.

    Raises:
        DataError: a sample is accounted for nowhere (a bug, or commits that were tampered with).
    """
    rows = plan.table.num_rows
    row_of = {key: row for row, key in enumerate(plan.table["key"].to_pylist())}
    bad: dict[int, tuple[str, str]] = {}
    columns: dict[str, pa.Array] = {}
    for stage, by_shard in refs.items():
        where = {name: np.full(rows, -1, np.int64) for name in ("offset", "size", "crc32")}
        for commit in all_committed(store, stage, by_shard):
            at = np.array([row_of[key] for key in commit.samples], np.int64)
            spans = np.array([span for _, span in commit.samples.values()], np.int64).reshape(-1, 3)
            for name, values in zip(where, spans.T, strict=True):
                where[name][at] = values
            for q in commit.quarantined:
                bad.setdefault(row_of[q.key], (q.reason, q.message))
        for name, values in where.items():
            columns[f"{stage}.{name}"] = pa.array(values, mask=values < 0)
    _refuse_gaps(plan, columns, bad)
    status = np.full(rows, "ok", object)
    status[list(bad)] = "quarantined"
    table = plan.table.select(["id", "key", "shard"])
    for name, values in {
        "identity": _identities(plan.table["labels"]),
        "labels_json": plan.table["labels"],
        "status": pa.array(status, pa.large_string()),
        "reason": pa.array([bad[r][0] if r in bad else None for r in range(rows)], pa.large_string()),
        "message": pa.array([bad[r][1] if r in bad else None for r in range(rows)], pa.large_string()),
        **columns,
    }.items():
        table = table.append_column(name, values)
    return table


def _identities(labels: Iterable[pa.Scalar]) -> pa.Array:
    found = (json.loads(text.as_py()).get("identity") for text in labels)
    return pa.array([None if i is None else str(i) for i in found], pa.large_string())


def _refuse_gaps(plan: Plan, columns: Mapping[str, pa.Array], bad: Mapping[int, Any]) -> None:
    for name, values in columns.items():
        missing = [row for row in np.flatnonzero(pc.is_null(values).to_numpy(False)) if row not in bad]
        if missing:
            sample_id = plan.table["id"][int(missing[0])].as_py()
            raise DataError(
                f"{len(missing)} samples, '{sample_id}' among them, are neither in column '{name.split('.')[0]}' nor "
                "quarantined; run `python -m jobs shards verify` on the store"
            )
