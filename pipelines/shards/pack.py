"""A version of a store as plain wide WebDataset tars, for tools that know nothing of columns, commits and manifests.

=======================  ============================================================================================
``000000.tar``...        good samples in key order, each with the members of all chosen columns
``index.parquet``        a row per sample: ``key, id, tar, offset, size, caption, identity, labels_json``
``pack.json``            what was packed, and the SHA-256 of every file; written last: with it, the pack is whole
``unfinished-*``         only while a pack is being made: what it will be, and the index rows of the tars that are there
=======================  ============================================================================================

:mod:`pipelines.shards.plain` says how members are named.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from e4t_core.errors import DataError, UsageError
from e4t_core.record import canonical_json, content_hash
from e4t_core.schema import Sample, decode_json
from e4t_core.storage import Store
from pipelines.loader import ShardDataset
from pipelines.shards.manifest import load_manifest
from pipelines.shards.plain import plain
from pipelines.shards.tar import Writer, closed_size, footprint

HEAD, INDEX, UNFINISHED = "pack.json", "index.parquet", "unfinished-"
_CLAIM = f"{UNFINISHED}{HEAD}"
_SCHEMA = 1
"""Raise it whenever the same samples give other bytes."""
_AT_ONCE, _PIECE = 64, 16 << 20
"""Samples that are read together; bytes that are hashed together."""
_TEXT = pa.large_string()
ROWS = pa.schema(
    [
        pa.field("key", _TEXT, False), pa.field("id", _TEXT, False), pa.field("tar", _TEXT, False),
        pa.field("offset", pa.int64(), False), pa.field("size", pa.int64(), False),
        pa.field("caption", _TEXT), pa.field("identity", _TEXT), pa.field("labels_json", _TEXT, False),
    ]
)  # fmt: skip
"""Columns of the index. A sample's members are the bytes ``[offset, offset + size)`` of its tar."""


class Packed(NamedTuple):
    """One finished tar: its name, size and hash, and its rows of the index."""

    name: str
    bytes: int
    sha256: str
    rows: pa.Table

    def facts(self) -> dict[str, Any]:
        """What ``pack.json`` says of it."""
        return {"name": self.name, "samples": self.rows.num_rows, "bytes": self.bytes, "sha256": self.sha256}


@dataclass(frozen=True)
class Packing:
    """A version of a store, and how it is to be packed.

    Attributes:
        columns: stages whose members go in.
        samples_per_shard: most samples of a tar.
        max_bytes: most bytes of a tar; a sample that is larger has a tar of its own.
    """

    dataset: ShardDataset
    columns: tuple[str, ...]
    samples_per_shard: int
    max_bytes: int

    @classmethod
    def of(
        cls, store: Store, version: int | None, columns: Sequence[str], samples_per_shard: int, max_mb: float
    ) -> Packing:
        """Open a version; no ``columns`` are all columns.

        Raises:
            UsageError: no such version or column, or a size below 1.
            DataError: nothing is committed there, or no sample is good.
        """
        if samples_per_shard < 1 or max_mb <= 0:
            raise UsageError(
                f"{samples_per_shard} samples per shard, {max_mb:g} MB at most: a tar needs at least one sample and "
                "more than 0 MB"
            )
        dataset = ShardDataset(store, version)
        dataset.check_columns(columns)
        if not len(dataset):
            raise DataError(f"{store.uri} version {dataset.version} has no good samples, so there is nothing to pack")
        chosen = tuple(name for name in dataset.columns if name in columns or not columns)
        return cls(dataset, chosen, samples_per_shard, round(max_mb * 1e6))

    def describe(self) -> dict[str, Any]:
        """What decides the bytes of the pack, wherever the store is."""
        head = load_manifest(self.dataset.store, self.dataset.version).head
        return {
            "schema": _SCHEMA,
            "version": self.dataset.version,
            "index": head["index"]["sha256"],
            "columns": {c: {k: head["stages"][c][k] for k in ("version", "settings", "weights")} for c in self.columns},
            "samples_per_shard": self.samples_per_shard,
            "max_bytes": self.max_bytes,
        }


def pack(packing: Packing, to: Store, on_progress: Callable[[int], object] = lambda samples: None) -> dict[str, Any]:
    """Write the pack; what an earlier run has written of it is kept.

    Args:
        to: an empty place, or one that holds this pack, whole or not.
        on_progress: told of every tar how many samples it has.

    Returns:
        What ``pack.json`` holds, with ``made`` and ``kept``: how many tars were written now, and were there.

    Raises:
        UsageError: something else is there.
        DataError: the store is damaged.
    """
    what = packing.describe()
    if (head := _claimed(to, what)) is not None:
        _tidy(to)
        return {**head, "made": 0, "kept": len(head["tars"])}
    # by key, not by shard: a pack depends on its samples alone and not on how the store grew
    order = pc.sort_indices(packing.dataset.table["key"]).to_pylist()
    tars, made, at, index = list[dict[str, Any]](), 0, 0, io.BytesIO()
    with pq.ParquetWriter(index, ROWS, compression="zstd") as writer:
        while at < len(order):
            name = f"{len(tars):06d}.tar"
            packed = _kept(to, name, packing.dataset.table["key"][order[at]].as_py())
            if packed is None:
                packed = _make(packing, to, name, order[at : at + packing.samples_per_shard])
                made += 1
            writer.write_table(packed.rows)
            tars.append(packed.facts())
            at += packed.rows.num_rows
            on_progress(packed.rows.num_rows)
    to.put(INDEX, index.getvalue())
    head = _head(packing, what, tars, index.getvalue())
    to.write_json(HEAD, head)
    _tidy(to)
    return {**head, "made": made, "kept": len(tars) - made}


# --- whose place it is


def _claimed(to: Store, what: Mapping[str, Any]) -> dict[str, Any] | None:
    """Take the place; the pack's head if it is whole already."""
    if (head := _read(to, HEAD)) is not None:
        _refuse_other(to, head.get("pack"), what, "a pack")
        sizes = {entry.key: entry.size for entry in to.list()}
        if all(sizes.get(t["name"]) == t["bytes"] for t in [*head["tars"], head["index"]]):
            return head
    elif (claim := _read(to, _CLAIM)) is not None:
        _refuse_other(to, claim, what, "an unfinished pack")
    elif (entry := next(to.list(unfinished=True), None)) is not None:
        raise UsageError(f"{to.uri} is not empty ({entry.key} is there) and holds no pack; give --to an empty place")
    elif not to.create(_CLAIM, canonical_json(what)):
        return _claimed(to, what)
    return None


def _refuse_other(to: Store, there: Any, what: Mapping[str, Any], kind: str) -> None:
    if there == what:
        return
    names = sorted(k for k in what if not isinstance(there, dict) or there.get(k) != what[k])
    raise UsageError(
        f"{to.uri} holds {kind} that differs in {', '.join(names)}; choose another --to, or delete what is there"
    )


def _read(to: Store, key: str) -> dict[str, Any] | None:
    try:
        data = to.read(key)
    except FileNotFoundError:
        return None
    return decode_json(data, to.url(key))


def _tidy(to: Store) -> None:
    for entry in list(to.list(unfinished=True)):
        if entry.key.startswith(UNFINISHED):
            to.delete(entry.key)


# --- one tar


def _part(name: str) -> str:
    return f"{UNFINISHED}{name.removesuffix('.tar')}.parquet"


def _kept(to: Store, name: str, first: str) -> Packed | None:
    """The tar that an earlier run wrote, if it begins with the sample ``first`` and its bytes are right."""
    try:
        rows = pq.read_table(io.BytesIO(to.read(_part(name))))
    except FileNotFoundError:
        return None
    facts = rows.schema.metadata
    size, sha256 = int(facts[b"bytes"]), facts[b"sha256"].decode()
    if rows["key"][0].as_py() != first or to.size(name) != size or _sha256(to, name) != sha256:
        return None
    return Packed(name, size, sha256, rows)


def _sha256(to: Store, key: str) -> str:
    digest = hashlib.sha256()
    with to.open(key) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _make(packing: Packing, to: Store, name: str, rows: Sequence[int]) -> Packed:
    """Write the tar of as many of ``rows`` as it may hold, then its rows of the index."""
    writer, known, taken = Writer(), list[dict[str, Any]](), 0
    for sample in _samples(packing, rows):
        members, facts = plain(sample)
        size = footprint(members)
        if known and closed_size(taken + size) > packing.max_bytes:
            break
        writer.add(sample["__key__"], members)
        known.append(facts)
        taken += size
    tar = writer.finish()
    for facts, span in zip(known, tar.spans.values(), strict=True):
        facts |= {"tar": name, "offset": span.offset, "size": span.size}
    table = pa.Table.from_pylist(known, ROWS)
    to.put(name, tar.data)
    part = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"bytes": str(len(tar.data)), "sha256": tar.sha256}), part)
    to.put(_part(name), part.getvalue())
    return Packed(name, len(tar.data), tar.sha256, table)


def _samples(packing: Packing, rows: Sequence[int]) -> Iterator[Sample]:
    """Good samples with all their members; reads one piece ahead."""

    def read(at: int) -> list[Sample]:
        return packing.dataset.samples(rows[at : at + _AT_ONCE], packing.columns)

    with ThreadPoolExecutor(1) as ahead:
        pending = ahead.submit(read, 0)
        for at in range(_AT_ONCE, len(rows) + _AT_ONCE, _AT_ONCE):
            samples = pending.result()
            if at < len(rows):
                pending = ahead.submit(read, at)
            yield from samples


# --- the end


def _head(packing: Packing, what: Mapping[str, Any], tars: list[dict[str, Any]], index: bytes) -> dict[str, Any]:
    dataset = packing.dataset
    return {
        "pack": what,
        "version": dataset.version,
        "columns": list(packing.columns),
        "samples": len(dataset),
        "quarantined": load_manifest(dataset.store, dataset.version).head["quarantined"],
        "bytes": sum(tar["bytes"] for tar in tars),
        "tars": tars,
        "index": {"name": INDEX, "bytes": len(index), "sha256": content_hash(index)},
    }
