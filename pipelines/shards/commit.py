"""Fingerprints and commits: what makes a shard of a column, and the object that says it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from e4t_core.errors import DataError
from e4t_core.record import canonical_json, fingerprint
from e4t_core.schema import SCHEMA_VERSION
from e4t_core.storage import Store
from pipelines.shards import layout
from pipelines.shards.tar import Span
from pipelines.stages.base import Stage

_READERS = 16
MAX_MESSAGE = 300
"""Characters that are kept of why a sample was quarantined."""


def stage_identity(stage: Stage) -> dict[str, Any]:
    """What of a stage decides its output.

    Resources stay out, batch size and threads included: they move at most the last bits of a float16 feature, and
    must be free to change (another GPU, a batch halved when memory runs out) without remaking a dataset. They are
    in the commit. Repeating a command repeats its bytes, since it has the same resources.
    """
    return {
        "name": stage.name,
        "version": stage.version,
        "settings": stage.settings(),
        "weights": stage.weights(),
        "schema": SCHEMA_VERSION,
    }


@dataclass(frozen=True)
class Inputs:
    """What one shard of one stage is made from.

    Attributes:
        items: hash of what the source lists (stages that read the source), else empty.
        upstream: stage -> SHA-256 of the tar it reads. A changed file that decodes to the same bytes changes nothing.
        retry: how often quarantined samples were tried again on request.
    """

    items: str = ""
    upstream: Mapping[str, str] = field(default_factory=dict)
    retry: int = 0


def shard_fingerprint(identity: Mapping[str, Any], inputs: Inputs) -> str:
    """The name of this work: same fingerprint, nothing to do."""
    return fingerprint({"stage": identity, "inputs": asdict(inputs)})


@dataclass(frozen=True)
class ShardRef:
    """The few facts of a commit that other stages and manifests need.

    Attributes:
        fingerprint, inputs: what it was made from.
        key, sha256, bytes: its tar.
        n_ok, n_bad: samples in the tar, samples quarantined.
    """

    fingerprint: str
    inputs: Inputs
    key: str
    sha256: str
    bytes: int
    n_ok: int
    n_bad: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ShardRef:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**fields, "inputs": Inputs(**fields["inputs"])})


@dataclass(frozen=True)
class Quarantined:
    """A sample that has no output, and why."""

    id: str
    key: str
    reason: str
    message: str


@dataclass(frozen=True)
class Commit:
    """A finished shard of one column.

    Attributes:
        stage: :func:`stage_identity` of what made it.
        shard: its number.
        ref: fingerprint, inputs and tar.
        samples: key -> (id, where it is in the tar).
        quarantined: the rest of its inputs.
        resources: worker settings it was made with; ``most`` if memory held no more samples at once.
        seconds: device -> seconds of computing.
        waited: seconds spent waiting for inputs.
        started, finished: seconds since 1970.
        facts: key -> figures that the stage gives of a sample, good or quarantined.
    """

    stage: Mapping[str, Any]
    shard: int
    ref: ShardRef
    samples: Mapping[str, tuple[str, Span]]
    quarantined: tuple[Quarantined, ...]
    resources: Mapping[str, Any]
    seconds: Mapping[str, float]
    waited: float
    started: float
    finished: float
    facts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Where it is stored."""
        return layout.commit_key(self.stage["name"], self.shard, self.ref.fingerprint)

    def to_json(self) -> bytes:
        """Deterministic JSON."""
        fields = {
            **vars(self),
            "ref": self.ref.to_dict(),
            "n_in": self.ref.n_ok + self.ref.n_bad,
            "samples": [[key, sample_id, *span] for key, (sample_id, span) in self.samples.items()],
            "quarantined": [asdict(q) for q in self.quarantined],
        }
        if not self.facts:
            del fields["facts"]  # stages without figures have the commits they always had
        return canonical_json(fields) + b"\n"


def load_commit(store: Store, key: str) -> Commit | None:
    """The commit at ``key``, or None.

    Raises:
        DataError: it is not a commit, or a newer e4t wrote it.
    """
    try:
        fields = store.read_json(key)
    except FileNotFoundError:
        return None
    try:
        if fields["stage"]["schema"] > SCHEMA_VERSION:
            raise DataError(
                f"{store.url(key)} has shard schema {fields['stage']['schema']}; this e4t reads up to "
                f"{SCHEMA_VERSION}: upgrade e4t"
            )
        n_in = fields.pop("n_in")
        fields["ref"] = ShardRef.from_dict(fields["ref"])
        fields["samples"] = {row[0]: (row[1], Span(*row[2:])) for row in fields["samples"]}
        fields["quarantined"] = tuple(Quarantined(**q) for q in fields["quarantined"])
        commit = Commit(**fields)
    except (KeyError, TypeError) as error:
        raise DataError(f"{store.url(key)} is not a commit: {error!r}; delete it and run preprocess again") from error
    good, bad = len(commit.samples), len(commit.quarantined)
    if n_in != good + bad:
        raise DataError(
            f"{store.url(key)}: {n_in} samples went in, but {good} good and {bad} bad came out; delete it and run "
            "preprocess again"
        )
    return commit


def committed(store: Store, stage: str, shard: int, ref: ShardRef) -> Commit:
    """The commit that ``ref`` speaks of.

    Raises:
        DataError: it is gone, or another took its place.
    """
    key = layout.commit_key(stage, shard, ref.fingerprint)
    commit = load_commit(store, key)
    if commit is None or commit.ref != ref:
        raise DataError(
            f"{store.url(key)} is gone, or changed while it was read; run the same command again, or "
            f"`python -m jobs shards verify {store.uri}`, which says what to do"
        )
    return commit


def all_committed(store: Store, stage: str, refs: Mapping[int, ShardRef]) -> Iterator[Commit]:
    """:func:`committed` of every shard, in order; only a few are held, since each lists every sample of its shard."""
    shards = iter(refs.items())
    with ThreadPoolExecutor(_READERS) as pool:
        while part := list(islice(shards, _READERS)):
            yield from pool.map(lambda pair: committed(store, stage, *pair), part)
