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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from e4t_core.errors import DataError
from e4t_core.record import content_hash
from e4t_core.storage import Store
from pipelines.shards import layout
from pipelines.shards.reading import Located, read_samples
from pipelines.shards.tar import Span

SCHEMA_VERSION = 1
_MAX_RACES = 50


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
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema), out, compression="zstd")
    return out.getvalue()


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
    data = parquet(rows, schema)
    index = {"key": f"{layout.INDEXES}/{content_hash(data, 16)}.parquet", "sha256": content_hash(data)}
    units = [{k: commits[n][k] for k in ("unit", "fingerprint", "files")} for n in sorted(commits)]
    for _ in range(_MAX_RACES):
        versions = layout.numbers(store, layout.MANIFESTS)
        newest = store.read_json(layout.numbered_key(layout.MANIFESTS, versions[-1])) if versions else {}
        if newest.get("units") == units and newest["index"] == index:
            return dict(newest)
        manifest = {
            "version": (versions[-1] if versions else 0) + 1,
            "schema": SCHEMA_VERSION,
            "created": time.time(),
            "units": units,
            "index": index,
            **about,
        }
        store.put(index["key"], data)
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        if store.create(layout.numbered_key(layout.MANIFESTS, manifest["version"]), text.encode()):
            return manifest
    raise DataError(f"{store.uri}: {_MAX_RACES} other writers published first; run the same command again")


def open_version(uri: str, kind: str, version: int | None, made_by: str) -> tuple[Store, dict[str, Any], pa.Table]:
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
    data = store.read(manifest["index"]["key"])
    if content_hash(data) != manifest["index"]["sha256"]:
        raise DataError(f"{store.url(manifest['index']['key'])} is damaged: its SHA-256 is not the manifest's")
    return store, manifest, pq.read_table(io.BytesIO(data))


def _check_schema(found: int, where: str) -> None:
    if found > SCHEMA_VERSION:
        raise DataError(f"{where} has unit schema {found}; this e4t reads up to {SCHEMA_VERSION}: upgrade e4t")


IMAGE_ROWS = pa.schema(
    [
        ("method", pa.string()),
        ("identity", pa.string()),
        ("prompt", pa.string()),
        ("prompt_text", pa.string()),
        ("concept_less", pa.string()),
        ("kind", pa.string()),
        ("index", pa.int32()),
        ("seed", pa.int64()),
        ("unit", pa.int32()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("crc32", pa.int64()),
        ("seconds_generate", pa.float64()),
        # of the identity, the same in each of its rows
        ("steps", pa.int32()),
        ("seconds_personalize", pa.float64()),
        ("seconds_setup", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
        ("bytes_adapter", pa.int64()),
        ("embedding_norm_json", pa.string()),
        ("near", pa.string()),
        ("input_key", pa.string()),
    ]
)
"""Columns of an image set's index; ``offset``, ``size`` and ``crc32`` are of the image's member in its unit's tar;
``near`` are the words that a method's adapter says its concept is near to, nearest first."""


class ImageSet:
    """One version of generated images, for reading.

    Attributes:
        manifest: what made them (``method``, ``recipe``, ``inputs``, counts, ``failed`` identities).
        table: Arrow table with the columns of :data:`IMAGE_ROWS`, sorted by identity, prompt as in the recipe, index.
    """

    def __init__(self, store: Store, manifest: Mapping[str, Any], table: pa.Table) -> None:
        self.store, self.manifest, self.table = store, manifest, table
        self._tars = {unit["unit"]: unit["files"]["tar"]["key"] for unit in manifest["units"]}

    @classmethod
    def open(cls, uri: str, version: int | None = None) -> ImageSet:
        """Open the newest version at ``uri``, or the one named.

        Raises:
            DataError: no images there, or damaged.
        """
        return cls(*open_version(uri, "images", version, "generate"))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """PNG bytes of rows of :attr:`table`, in the order asked.

        Raises:
            DataError: a tar is missing or damaged.
        """
        facts = self.table.select(["identity", "unit", "offset", "size", "crc32"]).take(pa.array(rows, pa.int64()))
        wanted = [
            Located(f["identity"], self._tars[f["unit"]], Span(f["offset"], f["size"], f["crc32"]))
            for f in facts.to_pylist()
        ]
        return [members["png"] for members in read_samples(self.store, wanted)]
