"""Adapters of many identities in one safetensors file a unit, read one identity at a time by range reads."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pyarrow as pa
from safetensors.torch import load, save
from torch import Tensor

from e4t_core.errors import DataError, UsageError, nearest
from e4t_core.methods.base import Adapter
from e4t_core.record import RECORD_KEY, Record
from e4t_core.storage import Store
from jobs._units import open_version
from pipelines.shards.keys import sample_key

FACTS = pa.schema(
    [
        ("identity", pa.string()),
        ("key", pa.string()),
        ("unit", pa.int32()),
        ("status", pa.string()),
        ("message", pa.string()),
        ("input_key", pa.string()),
        ("input_keys", pa.list_(pa.string())),
        ("seed", pa.int64()),
        ("steps", pa.int32()),
        ("seconds", pa.float64()),
        ("seconds_setup", pa.float64()),
        ("loss", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
        ("bytes", pa.int64()),
        ("crc32", pa.int64()),
        ("meta_json", pa.string()),
    ]
)
"""A row per identity: ``ok`` or ``failed`` with the reason. ``seconds_setup`` is the loading of the models, once per
actor; ``seconds`` the identity's own; ``key`` begins the names of its tensors; ``crc32`` is over their bytes;
``input_keys`` are the samples that it was learned from, ``input_key`` the first of them."""

_HEAD = 8


def photos_of(facts: Mapping[str, Any]) -> list[str]:
    """Sample keys of the images that an adapter was made from; one from before there could be several names one."""
    return list(facts.get("input_keys") or [facts["input_key"]])


def pack(adapters: Mapping[str, Adapter], record: Record) -> tuple[bytes, dict[str, dict[str, int]]]:
    """One safetensors file of all adapters, and each identity's ``bytes`` and ``crc32``."""
    tensors = {
        f"{sample_key(identity)}/{name}": tensor.contiguous()
        for identity, adapter in adapters.items()
        for name, tensor in adapter.tensors.items()
    }
    data = save(tensors, metadata={RECORD_KEY: record.to_json()})
    size = int.from_bytes(data[:_HEAD], "little")
    header, body = json.loads(data[_HEAD : _HEAD + size]), data[_HEAD + size :]
    facts = {}
    for identity in adapters:
        crc, count = 0, 0
        for _, entry in _entries(header, identity):
            start, stop = entry["data_offsets"]
            crc, count = zlib.crc32(body[start:stop], crc), count + stop - start
        facts[identity] = {"bytes": count, "crc32": crc}
    return data, facts


def _entries(header: Mapping[str, Any], identity: str) -> list[tuple[str, dict[str, Any]]]:
    """(name without the identity, header entry) of an identity's tensors, in file order."""
    prefix = f"{sample_key(identity)}/"
    found = [(name.removeprefix(prefix), entry) for name, entry in header.items() if name.startswith(prefix)]
    return sorted(found, key=lambda pair: pair[1]["data_offsets"])


class AdapterSet:
    """One version of a personalized set, for reading.

    Attributes:
        manifest: what made them (``method``, ``recipe``, ``inputs``, counts).
        table: Arrow table with the columns of :data:`FACTS`.
    """

    def __init__(self, store: Store, manifest: Mapping[str, Any], table: pa.Table) -> None:
        self.store, self.manifest, self.table = store, manifest, table
        self._files = {unit["unit"]: unit["files"]["safetensors"]["key"] for unit in manifest["units"]}
        self._rows = {row["identity"]: row for row in table.to_pylist()}
        self._header = lru_cache(maxsize=2)(self._read_header)

    @classmethod
    def open(cls, uri: str, version: int | None = None) -> AdapterSet:
        """Open the newest version at ``uri``, or the one named.

        Raises:
            DataError: no adapters there, or damaged.
        """
        return cls(*open_version(uri, "adapters", version, "personalize"))

    def facts(self, identity: str) -> dict[str, Any]:
        """The identity's row.

        Raises:
            UsageError: it is not in the set.
        """
        if identity not in self._rows:
            raise UsageError(f"{self.store.uri} has no adapter of '{identity}'{nearest(identity, self._rows)}")
        return dict(self._rows[identity])

    def chosen(self, asked: Sequence[str] | None) -> list[str]:
        """The identities asked for; all that succeeded if none are.

        Raises:
            UsageError: one is not in the set, or there is none at all.
        """
        if asked:
            return [self.facts(identity)["identity"] for identity in dict.fromkeys(asked)]
        found = [row["identity"] for row in self.table.to_pylist() if row["status"] == "ok"]
        if not found:
            raise UsageError(f"{self.store.uri} has no identity whose personalization succeeded")
        return found

    def read(self, identity: str) -> Adapter:
        """An identity's adapter; nothing else of its unit is fetched.

        Raises:
            UsageError: it is not in the set, or its personalization failed.
            DataError: missing or damaged.
        """
        row = self.facts(identity)
        if row["status"] != "ok":
            raise UsageError(f"the personalization of '{identity}' failed: {row['message']}")
        tensors = self._tensors(self._files[row["unit"]], row)
        return Adapter(self.manifest["method"], identity, tensors, json.loads(row["meta_json"]))

    def _tensors(self, key: str, row: Mapping[str, Any]) -> dict[str, Tensor]:
        begin, header = self._header(key)
        entries = _entries(header, row["identity"])
        if not entries:
            return {}
        pieces = self.store.read_ranges([(key, begin + a, begin + b) for a, b in _runs(entries)])
        body = b"".join(pieces)
        if zlib.crc32(body) != row["crc32"]:
            raise DataError(
                f"{self.store.url(key)}: the tensors of '{row['identity']}' are not what was committed; delete the "
                "unit's commit and run personalize again"
            )
        return load(_file(entries, body))

    def _read_header(self, key: str) -> tuple[int, dict[str, Any]]:
        """Where the tensors begin, and the header."""
        try:
            size = int.from_bytes(self.store.read_ranges([(key, 0, _HEAD)])[0], "little")
            text = self.store.read_ranges([(key, _HEAD, _HEAD + size)])[0]
        except FileNotFoundError as error:
            raise DataError(f"{self.store.url(key)} is missing, and the manifest names it") from error
        try:
            return _HEAD + size, json.loads(text)
        except ValueError as error:
            raise DataError(f"{self.store.url(key)} is not a whole safetensors file: {error}") from error


def _runs(entries: list[tuple[str, dict[str, Any]]]) -> list[tuple[int, int]]:
    """Byte ranges that hold the entries; neighbours are fetched together."""
    spans = [tuple(entry["data_offsets"]) for _, entry in entries]
    cuts = [i for i, (a, b) in enumerate(pairwise(spans), start=1) if a[1] != b[0]]
    return [(spans[a][0], spans[b - 1][1]) for a, b in pairwise([0, *cuts, len(spans)])]


def _file(entries: list[tuple[str, dict[str, Any]]], body: bytes) -> bytes:
    """A safetensors file of these tensors alone, for the library to decode."""
    header, at = {}, 0
    for name, entry in entries:
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        header[name] = {**entry, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(_HEAD, "little") + text + body
