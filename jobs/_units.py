"""Committed units of identities: how ``personalize`` and ``generate`` write, and how everybody reads.

==================================================  ================================================================
``data/<kind>/<unit>-<content hash>.<ext>``         a unit's output; never overwritten
``commits/<kind>/<unit>-<fingerprint>.json``        the unit is done; created exclusively, so one of many racers wins
``indexes/<content hash>.parquet``                  all rows of a version
``manifests/000001.json``                           a version: the only thing that readers open
==================================================  ================================================================

``kind`` is ``adapters`` (a safetensors file and a parquet of facts a unit) or ``images`` (a tar a unit).
"""

from __future__ import annotations

import io
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from e4t_core.errors import DataError
from e4t_core.record import content_hash
from e4t_core.storage import Store
from jobs._index import Index, Written, written
from jobs._rows import IMAGE_ROWS as IMAGE_ROWS
from pipelines.shards import layout
from pipelines.shards.reading import Located, read_samples
from pipelines.shards.tar import Span

SCHEMA_VERSION = 1
_MAX_RACES = 50
_AHEAD = 8
"""Commits that are read at once."""


@dataclass(frozen=True)
class Unit:
    """Work that is committed together.

    Attributes:
        kind: ``adapters`` or ``images``.
        number: from 0, in order of identity.
        fingerprint: of everything that decides the output: same fingerprint, nothing to do.
        items: what to work on; plain values.
    """

    kind: str
    number: int
    fingerprint: str
    items: tuple[Any, ...]

    def __str__(self) -> str:
        return f"unit {self.number} of {self.kind}"

    @property
    def key(self) -> str:
        """Where its commit is."""
        return layout.commit_key(self.kind, self.number, self.fingerprint)


def parquet(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """Rows as a parquet file."""
    out = io.BytesIO()
    pq.write_table(_table(rows, schema), out, compression="zstd")
    return out.getvalue()


def _table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows], schema)


def commit(store: Store, unit: Unit, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write a unit's files, then its commit; returns the commit that stands, which may be a faster racer's."""
    written = {}
    for extension, data in files.items():
        sha256 = content_hash(data)
        key = f"{layout.DATA}/{unit.kind}/{unit.number:06d}-{sha256[:16]}.{extension}"
        store.put(key, data)
        written[extension] = {"key": key, "sha256": sha256, "bytes": len(data)}
    body = {
        "schema": SCHEMA_VERSION,
        "kind": unit.kind,
        "unit": unit.number,
        "fingerprint": unit.fingerprint,
        "files": written,
        "finished": time.time(),
        **facts,
    }
    store.create(unit.key, (json.dumps(body, separators=(",", ":")) + "\n").encode())
    return read_commit(store, unit.key)


def read_commit(store: Store, key: str) -> dict[str, Any]:
    """A commit.

    Raises:
        DataError: it is not one, or a newer e4t wrote it.
    """
    body = store.read_json(key)
    if not isinstance(body, dict) or not {"schema", "unit", "files"} <= body.keys():
        raise DataError(f"{store.url(key)} is no commit of a unit; delete it and run the same command again")
    _check_schema(body["schema"], store.url(key))
    return body


def committed(store: Store, units: Sequence[Unit]) -> dict[int, dict[str, Any]]:
    """Number -> commit of those units that are done."""
    there = {entry.key for unit in units[:1] for entry in store.list(f"{layout.COMMITS}/{unit.kind}")}
    return {unit.number: read_commit(store, unit.key) for unit in units if unit.key in there}


def done(store: Store, units: Sequence[Unit]) -> set[int]:
    """Numbers of those units that are done: from a listing, no commit is read."""
    there = {entry.key for unit in units[:1] for entry in store.list(f"{layout.COMMITS}/{unit.kind}")}
    return {unit.number for unit in units if unit.key in there}


def each_commit(store: Store, units: Sequence[Unit]) -> Iterator[dict[str, Any]]:
    """The commits of units that are done, in order, read a few ahead and forgotten one by one."""
    there = done(store, units)
    keys = [unit.key for unit in units if unit.number in there]
    with ThreadPoolExecutor(_AHEAD) as pool:
        ahead: deque[Future[dict[str, Any]]] = deque()
        for key in keys:
            ahead.append(pool.submit(read_commit, store, key))
            if len(ahead) > _AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def newest_tries(
    store: Store, tries: Sequence[Callable[[int], Unit]], again: Callable[[Mapping[str, Any]], bool]
) -> list[Unit]:
    """Of every unit the newest try that is committed, the first if none is, or one more if ``again`` of its commit.

    Args:
        tries: for every unit, what makes its try number 0, 1, ...; all of one kind.
    """
    there = {entry.key for unit in tries[:1] for entry in store.list(f"{layout.COMMITS}/{unit(0).kind}")}
    out = []
    for unit in tries:
        last = next(number for number in count() if unit(number + 1).key not in there)
        more = unit(last).key in there and again(read_commit(store, unit(last).key))
        out.append(unit(last + more))
    return out


def publish(
    store: Store,
    commits: Mapping[int, Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    schema: pa.Schema,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Publish the version that the units make up, unless the newest is the same; returns its manifest.

    Args:
        commits: of every unit.
        rows: the index.
        schema: of the rows.
        about: further fields of the manifest (recipe, inputs, counts).
    """
    units = [_unit_of(commits[number]) for number in sorted(commits)]
    with written([_table(rows, schema)], schema) as index:
        return _publish(store, units, index, about)


def publish_streamed(
    store: Store,
    commits: Iterable[Mapping[str, Any]],
    schema: pa.Schema,
    about: Callable[[], Mapping[str, Any]],
) -> dict[str, Any]:
    """:meth:`publish` of the commits' own rows, which pass through one commit at a time.

    Args:
        commits: of every unit, in order, with their ``rows``.
        schema: of the rows.
        about: asked for when all commits have passed.
    """
    units: list[dict[str, Any]] = []

    def tables() -> Iterator[pa.Table]:
        for commit in commits:
            units.append(_unit_of(commit))
            yield _table(commit["rows"], schema)

    with written(tables(), schema) as index:
        return _publish(store, units, index, about())


def _unit_of(commit: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of a unit."""
    return {k: commit[k] for k in ("unit", "fingerprint", "files")}


def _publish(
    store: Store, units: Sequence[Mapping[str, Any]], index: Written, about: Mapping[str, Any]
) -> dict[str, Any]:
    place = {"key": f"{layout.INDEXES}/{index.sha256[:16]}.parquet", "sha256": index.sha256}
    for _ in range(_MAX_RACES):
        versions = layout.numbers(store, layout.MANIFESTS)
        newest = store.read_json(layout.numbered_key(layout.MANIFESTS, versions[-1])) if versions else {}
        if newest.get("units") == units and newest["index"] == place:
            return dict(newest)
        manifest = {
            "version": (versions[-1] if versions else 0) + 1,
            "schema": SCHEMA_VERSION,
            "created": time.time(),
            "units": units,
            "index": place,
            **about,
        }
        store.put_file(place["key"], index.path)
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        if store.create(layout.numbered_key(layout.MANIFESTS, manifest["version"]), text.encode()):
            return manifest
    raise DataError(f"{store.uri}: {_MAX_RACES} other writers published first; run the same command again")


def open_version(uri: str, kind: str, version: int | None, made_by: str) -> tuple[Store, dict[str, Any], pa.Table]:
    """Store, manifest and all rows of the index of a version; see :func:`open_index`."""
    store, manifest, index = open_index(uri, kind, version, made_by)
    return store, manifest, index.table()


def open_index(uri: str, kind: str, version: int | None, made_by: str) -> tuple[Store, dict[str, Any], Index]:
    """Store, manifest and index of a version; the newest if ``version`` is None.

    Raises:
        DataError: nothing is published there, it is of another kind, or damaged.
    """
    store = Store(uri)
    versions = layout.numbers(store, layout.MANIFESTS)
    if not versions or (version is not None and version not in versions):
        wanted = "no manifest" if version is None else f"no version {version} (it has {versions})"
        raise DataError(f"{store.uri} has {wanted}; `python -m jobs {made_by} --out {store.uri}` makes one")
    manifest = store.read_json(layout.numbered_key(layout.MANIFESTS, version or versions[-1]))
    if manifest.get("kind") != kind:
        found = manifest.get("kind", "shards")
        raise DataError(f"{store.uri} holds {found}, not {kind}; give the --out of `{made_by}`")
    _check_schema(manifest["schema"], store.uri)
    return store, manifest, Index(store, manifest["index"]["key"], manifest["index"]["sha256"])


def _check_schema(found: int, where: str) -> None:
    if found > SCHEMA_VERSION:
        raise DataError(f"{where} has unit schema {found}; this e4t reads up to {SCHEMA_VERSION}: upgrade e4t")


class ImageSet:
    """One version of generated images, for reading.

    Attributes:
        manifest: what made them (``method``, ``recipe``, ``inputs``, counts, ``failed`` identities).
        index: rows with the columns of :data:`IMAGE_ROWS`, sorted by identity, prompt as in the recipe, index.
    """

    def __init__(self, store: Store, manifest: Mapping[str, Any], index: Index) -> None:
        self.store, self.manifest, self.index = store, manifest, index
        self._tars = {unit["unit"]: unit["files"]["tar"]["key"] for unit in manifest["units"]}

    @classmethod
    def open(cls, uri: str, version: int | None = None) -> ImageSet:
        """Open the newest version at ``uri``, or the one named.

        Raises:
            DataError: no images there, or damaged.
        """
        return cls(*open_index(uri, "images", version, "generate"))

    def __len__(self) -> int:
        return self.index.rows

    @cached_property
    def table(self) -> pa.Table:
        """The whole index. Jobs over many images read it by units instead."""
        return self.index.table()

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """PNG bytes of rows of :attr:`table`, in the order asked.

        Raises:
            DataError: a tar is missing or damaged.
        """
        return self.read_of(self.table.take(pa.array(rows, pa.int64())))

    def read_of(self, rows: pa.Table) -> list[bytes]:
        """PNG bytes of rows of the index, in their order.

        Raises:
            DataError: a tar is missing or damaged.
        """
        facts = rows.select(["identity", "unit", "offset", "size", "crc32"]).to_pylist()
        wanted = [
            Located(f["identity"], self._tars[f["unit"]], Span(f["offset"], f["size"], f["crc32"])) for f in facts
        ]
        return [members["png"] for members in read_samples(self.store, wanted)]
