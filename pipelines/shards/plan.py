"""The plan: which ids are in which shard. Immutable and numbered; data that grows only adds shards.

Everything is held in Arrow columns, so a million ids take seconds and some hundred megabytes.
"""

from __future__ import annotations

import inspect
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from e4t_core.errors import DataError
from e4t_core.record import content_hash
from e4t_core.storage import Store
from pipelines.shards import forgotten, layout
from pipelines.shards.keys import sample_key
from pipelines.sources.base import Source, SourceItem

_TEXT = pa.large_string()  # plain strings overflow at 2 GB a column
LISTING = pa.schema([(name, _TEXT) for name in ("id", "key", "uri", "etag", "labels")])
_ROWS_AT_ONCE = 65_536
_LABELS = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class PlannedShard:
    """One shard: its number, and its rows ``[start, stop)`` of the plan's table.

    ``group`` is its row group in the items file.
    """

    number: int
    start: int
    stop: int
    group: int

    @property
    def samples(self) -> int:
        """How many samples are planned in it."""
        return self.stop - self.start


@dataclass(frozen=True)
class Plan:
    """A division of ids into shards.

    Attributes:
        version: number of the plan, from 1.
        table: LISTING's columns and ``shard`` (int32), sorted by shard, then key.
        samples_per_shard: size of the shards that this version added.
        next_shard: first number that no version of the plan has used.
        items_key: where the table is stored; empty for a draft that is not.
    """

    version: int
    table: pa.Table
    samples_per_shard: int
    next_shard: int
    items_key: str

    def shards(self) -> list[PlannedShard]:
        """Every shard that has samples, in order."""
        numbers = self.table["shard"].to_numpy()
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        stops = np.append(starts[1:], len(numbers))
        return [
            PlannedShard(int(numbers[a]), int(a), int(b), group)
            for group, (a, b) in enumerate(zip(starts, stops, strict=True))
        ]

    def inputs(self, shard: PlannedShard) -> str:
        """Hash of what the source says of the shard's samples: ids, ETags and labels, but not where they are."""
        part = self.table.slice(shard.start, shard.samples)
        rows = [part[name].to_pylist() for name in ("id", "etag", "labels")]
        return content_hash(json.dumps(rows, separators=(",", ":")).encode(), 16)


def listing(source: Source, limit: int | None) -> pa.Table:
    """The source's items as LISTING columns, sorted by id.

    Raises:
        DataError: the source has nothing, or lists an id twice.
    """
    chunks = list(_chunks(source.items(limit)))
    if not chunks:
        looked_for = (inspect.getdoc(type(source)) or "").split("\n")[0]
        raise DataError(
            f"source '{source.name}' has no items at '{source.config.path}'; it looks for: {looked_for} "
            "Check source.path and the source's other fields"
        )
    table = pa.Table.from_batches(chunks, LISTING)
    table = table.take(pc.sort_indices(table["id"])).combine_chunks()
    ids = table["id"].chunk(0)
    same = pc.equal(ids[1:], ids[:-1])
    if pc.any(same).as_py():
        at = pc.index(same, True).as_py()
        first, second = table.slice(at, 2).to_pylist()
        raise DataError(
            f"source '{source.name}' lists the id '{first['id']}' twice: {first['uri']} and {second['uri']}; "
            "ids must be unique, so rename or remove one of them"
        )
    return table


def _chunks(items: Iterator[SourceItem]) -> Iterator[pa.RecordBatch]:
    while rows := list(islice(items, _ROWS_AT_ONCE)):
        columns = (
            [item.id for item in rows],
            [_key(item) for item in rows],
            [item.uri for item in rows],
            [item.etag for item in rows],
            [_LABELS.encode(dict(item.labels)) if item.labels else "{}" for item in rows],
        )
        yield pa.record_batch([pa.array(c, _TEXT) for c in columns], schema=LISTING)


def _key(item: SourceItem) -> str:
    try:
        key = sample_key(item.id)
    except UnicodeEncodeError:  # a file name that is not UTF-8
        key = ""
    if not key:
        raise DataError(f"{item.uri!r} has the id {item.id!r}, which is empty or no Unicode text; rename it")
    return key


def latest(store: Store) -> Plan | None:
    """The newest plan, or None."""
    versions = layout.numbers(store, layout.PLANS)
    return load(store, versions[-1]) if versions else None


def load(store: Store, version: int) -> Plan:
    """A stored plan."""
    head = store.read_json(layout.numbered_key(layout.PLANS, version))
    with store.open(head["items"]) as file:
        table = pq.read_table(file)
    return Plan(version, table, head["samples_per_shard"], head["next_shard"], head["items"])


def derive(previous: Plan | None, listed: pa.Table, samples_per_shard: int) -> Plan:
    """The plan for ``listed``: ``previous`` itself if nothing changed, else a draft of the next version.

    Ids that ``previous`` has keep their shard, vanished ids leave theirs, new ids form new shards only.
    ``samples_per_shard`` is therefore the size of new shards; it never cuts old ones anew.
    """
    shard, next_shard = _assign(previous, listed["id"], samples_per_shard)
    table = listed.append_column("shard", pa.array(shard, pa.int32()))
    table = table.sort_by([("shard", "ascending"), ("key", "ascending")]).combine_chunks()
    if previous is not None and table.equals(previous.table):
        return previous
    version = previous.version + 1 if previous else 1
    return Plan(version, table, samples_per_shard, next_shard, items_key="")


def _assign(previous: Plan | None, ids: pa.ChunkedArray, samples_per_shard: int) -> tuple[np.ndarray, int]:
    """Shard number of each id, and the first unused number."""
    shard = np.full(len(ids), -1, np.int64)
    first = previous.next_shard if previous else 0
    if previous is not None:
        found = pc.index_in(ids, previous.table["id"])
        known = pc.is_valid(found).to_numpy()
        shard[known] = previous.table["shard"].to_numpy()[found.drop_null().to_numpy()]
    new = np.flatnonzero(shard < 0)
    shard[new] = first + np.arange(len(new)) // samples_per_shard
    return shard, first + -(-len(new) // samples_per_shard)


def resolve(store: Store, source: Source, samples_per_shard: int, limit: int | None = None) -> Plan:
    """List the source and return the store's plan for it, saving a new version if the listing changed.

    Raises:
        DataError: see :func:`listing`.
    """
    listed = listing(source, limit)
    while True:
        plan = draft(store, listed, samples_per_shard)
        if plan.items_key:
            return plan
        if saved := _save(store, plan):
            return saved


def draft(store: Store, listed: pa.Table, samples_per_shard: int) -> Plan:
    """What :func:`derive` makes of the store's newest plan and what may be planned of ``listed``."""
    return derive(latest(store), forgotten.without(listed, forgotten.digests(store)), samples_per_shard)


def without(store: Store, version: int, gone: forgotten.Digests) -> Plan:
    """That version of the plan less what was forgotten, saved as the newest; itself if that is nothing."""
    old = load(store, version)
    table = forgotten.without(old.table, gone)
    while table.num_rows < old.table.num_rows:
        newest = latest(store) or old
        plan = Plan(newest.version + 1, table.combine_chunks(), newest.samples_per_shard, newest.next_shard, "")
        if saved := _save(store, plan):
            return saved
    return old


def _save(store: Store, unsaved: Plan) -> Plan | None:
    """Write a draft; None if somebody else took its number first."""
    out = io.BytesIO()
    with pq.ParquetWriter(out, unsaved.table.schema, compression="zstd") as writer:
        for shard in unsaved.shards():
            writer.write_table(unsaved.table.slice(shard.start, shard.samples))
    data = out.getvalue()
    plan = replace(unsaved, items_key=f"{layout.PLANS}/items-{content_hash(data, 16)}.parquet")
    store.put(plan.items_key, data)
    head = {
        "version": plan.version,
        "samples": plan.table.num_rows,
        "shards": len(plan.shards()),
        "samples_per_shard": plan.samples_per_shard,
        "next_shard": plan.next_shard,
        "items": plan.items_key,
        "created": time.time(),
    }
    text = json.dumps(head, indent=1) + "\n"
    return plan if store.create(layout.numbered_key(layout.PLANS, plan.version), text.encode()) else None


def read_items(store: Store, items_key: str, group: int) -> list[tuple[str, SourceItem]]:
    """``(key, item)`` of one shard, read from its row group alone, in key order."""
    with store.open(items_key) as file:
        rows = pq.ParquetFile(file).read_row_group(group).to_pylist()
    return [(r["key"], SourceItem(r["id"], r["uri"], r["etag"], json.loads(r["labels"]))) for r in rows]
