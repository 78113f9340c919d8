"""Artifact records: what made a file, in a form that hashes the same on every machine.

A record travels inside the artifact (safetensors metadata) and beside it (``record.json``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from e4t_core.errors import DataError

RECORD_KEY = "e4t_record"
SCHEMA_VERSION = 1


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces.

    Raises:
        TypeError: for anything whose text would differ between runs (sets, objects, NaN, non-string keys).
    """
    _refuse_ambiguous(value, "$")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def fingerprint(value: Any, length: int = 16) -> str:
    """First ``length`` hex digits of the SHA-256 of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:length]


def content_hash(data: bytes, length: int = 64) -> str:
    """First ``length`` hex digits of the SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()[:length]


def _refuse_ambiguous(value: Any, where: str) -> None:
    if value is None or isinstance(value, (str, bool, int)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{where} is {value}: a fingerprint needs finite numbers")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}: a fingerprint needs string keys")
            _refuse_ambiguous(item, f"{where}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        for i, item in enumerate(value):
            _refuse_ambiguous(item, f"{where}[{i}]")
    else:
        raise TypeError(f"{where} is a {type(value).__name__}: it has no one text form, so it cannot be fingerprinted")


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of ``packages``, for lineage (never part of a fingerprint).

    What runs from a folder, as e4t in a Ray job's working directory does, has no version: it is ``not installed``.
    """
    return {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class Record:
    """What an artifact is and what made it.

    Attributes:
        kind: ``checkpoint``, ``adapter``, ``images``, ``evaluation``...
        recipe: the full resolved recipe.
        recipe_hash: :func:`fingerprint` of ``recipe``.
        inputs: name -> content fingerprint or versioned URI of everything read.
        facts: figures worth keeping beside the artifact (steps, seconds, losses).
    """

    kind: str
    recipe: Mapping[str, Any]
    recipe_hash: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    @classmethod
    def of(cls, kind: str, recipe: Mapping[str, Any], **fields: Any) -> Record:
        """Make a record, hashing ``recipe``."""
        return cls(kind=kind, recipe=recipe, recipe_hash=fingerprint(recipe), **fields)

    def to_json(self) -> str:
        """One line of JSON."""
        return canonical_json(asdict(self)).decode()

    @classmethod
    def from_json(cls, text: str, where: str) -> Record:
        """Read a record.

        Raises:
            DataError: not a record, or one that a newer e4t wrote.
        """
        try:
            fields = json.loads(text)
            record = cls(**fields)
        except (json.JSONDecodeError, TypeError) as error:
            raise DataError(f"{where} holds no e4t record: {error}") from error
        if record.schema > SCHEMA_VERSION:
            raise DataError(
                f"{where} has record schema {record.schema}; this e4t reads up to {SCHEMA_VERSION}: upgrade e4t"
            )
        return record
