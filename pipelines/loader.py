"""Batches out of committed shards: columns joined by key, split over ranks, shuffled by seed, resumed exactly.

The order of samples is one endless sequence (``pipelines/order.py``), the same for any number of ranks and threads.
Global batch ``b`` is positions ``[b*G, (b+1)*G)`` of it; rank ``r`` takes the ``r``-th part. A batch may span two
epochs, so no sample is ever dropped. The state is one number: the position.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from e4t_core.errors import CheckpointMismatch, DataError, UsageError
from e4t_core.methods.base import References
from e4t_core.schema import Sample
from e4t_core.storage import Store
from pipelines.collate import collate
from pipelines.order import Order, Shared, Shuffled
from pipelines.references import Partners
from pipelines.shards.manifest import load_index, load_manifest
from pipelines.shards.reading import Located, read_samples
from pipelines.shards.tar import Span
from pipelines.sources.base import PART


class ShardDataset:
    """One version of a store, for reading.

    Attributes:
        version: of the manifest.
        columns: stage names.
        table: Arrow columns ``row, key, id, shard, identity, labels_json``; quarantined samples are not in it.
    """

    def __init__(self, store: Store, version: int | None = None) -> None:
        self.store = store
        manifest = load_manifest(store, version)
        self.version = manifest.version
        self.columns = manifest.stages
        index = load_index(store, manifest)
        index = index.filter(pc.equal(index["status"], "ok"))
        self.table = index.select(["key", "id", "shard", "identity", "labels_json"]).add_column(
            0, "row", pa.array(np.arange(index.num_rows))
        )
        self._keys, self._shards = index["key"], index["shard"].to_numpy()
        self._tars = {stage: {n: ref.key for n, ref in manifest.refs(stage).items()} for stage in self.columns}
        self._spans = {
            stage: np.stack([index[f"{stage}.{part}"].to_numpy() for part in Span._fields], axis=1)
            for stage in self.columns
        }

    @classmethod
    def open(cls, uri: str, version: int | None = None) -> ShardDataset:
        """Open the newest version at ``uri``, or the one named.

        Raises:
            DataError: nothing is committed there, or its index is damaged.
            UsageError: no such version.
        """
        return cls(Store(uri), version)

    def __len__(self) -> int:
        return len(self._shards)

    def samples(self, rows: Sequence[int], columns: Sequence[str]) -> list[Sample]:
        """Members of all ``columns`` of each row, and ``__key__``, ``__id__``, ``__identity__``, ``__labels__``.

        Raises:
            UsageError: no such column.
            DataError: a tar is missing or damaged.
        """
        self.check_columns(columns)
        facts = self.table.select(["key", "id", "identity", "labels_json"]).take(pa.array(rows, pa.int64())).to_pylist()
        samples: list[Sample] = [
            {
                "__key__": fact["key"],
                "__id__": fact["id"],
                "__identity__": fact["identity"],
                "__labels__": json.loads(fact["labels_json"]),
            }
            for fact in facts
        ]
        wanted = [
            Located(facts[i]["key"], self._tars[c][int(self._shards[row])], Span(*self._spans[c][row].tolist()))
            for c in columns
            for i, row in enumerate(rows)
        ]
        for i, members in enumerate(read_samples(self.store, wanted)):
            samples[i % len(rows)].update(members)
        return samples

    def identities(self) -> dict[str, list[int]]:
        """Identity -> its rows, in order of identity; samples without one are left out."""
        out: dict[str, list[int]] = {}
        for row, identity in enumerate(self.table["identity"].to_pylist()):
            if identity is not None:
                out.setdefault(identity, []).append(row)
        return dict(sorted(out.items()))

    def shard_rows(self) -> dict[int, range]:
        """Shard -> its rows, which lie side by side, for shards that have any."""
        numbers, starts, counts = np.unique(self._shards, return_index=True, return_counts=True)
        return {
            int(number): range(int(start), int(start + count))
            for number, start, count in zip(numbers, starts, counts, strict=True)
        }

    def parts(self) -> dict[str, np.ndarray]:
        """Part of a mix -> its rows, ascending; empty if the source is no mix."""
        names = [json.loads(labels).get(PART) for labels in self.table["labels_json"].to_pylist()]
        found: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            if name is not None:
                found.setdefault(name, []).append(row)
        return {name: np.array(rows) for name, rows in sorted(found.items())}

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raise UsageError unless every column is there."""
        for column in columns:
            if column not in self.columns:
                raise UsageError(
                    f"{self.store.uri} version {self.version} has no column '{column}'; it has "
                    f"{', '.join(self.columns)}; add the stage to the recipe and run preprocess"
                )


class ShardLoader:
    """Endless batches for one rank.

    Args:
        dataset: what to read.
        columns: stages whose members are needed.
        batch_size: samples per batch of this rank; a global batch has ``batch_size * world_size``.
        seed: of the order.
        rank, world_size: this process's part of each global batch.
        workers: batches read ahead at once; 0 reads when asked. Does not change what comes.
        shares: part of a mix -> its share of what is drawn; None draws every sample as often as any other.
        references: give each sample columns of another one of its identity as well, see :class:`Partners`; a batch
            holds what :func:`collate` makes of them under names that begin with ``reference_``.

    Raises:
        DataError: all samples are quarantined, or all of a part.
        UsageError: no such columns, ranks or parts.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        columns: Sequence[str],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 2,
        shares: Mapping[str, float] | None = None,
        references: References | None = None,
    ) -> None:
        if not len(dataset):
            raise DataError(f"{dataset.store.uri} version {dataset.version} has no samples: all are quarantined")
        if batch_size < 1 or not 0 <= rank < world_size:
            raise UsageError(f"batch size {batch_size}, rank {rank} of {world_size}: need at least 1, and rank < ranks")
        dataset.check_columns([*columns, *(references.columns if references else ())])
        self.dataset, self.columns, self.batch_size = dataset, tuple(columns), batch_size
        self.seed, self.rank, self.world_size, self.workers = seed, rank, world_size, workers
        self.shares = dict(shares) if shares else None
        self.references = references
        self._partners = Partners(dataset, seed, references.nearest) if references else None
        self._order = _order(dataset, seed, self.shares)
        self._position = 0

    @property
    def position(self) -> int:
        """Samples that all ranks together have been given."""
        return self._position

    def rows(self, position: int) -> list[int]:
        """Dataset rows of this rank's batch whose global batch begins at ``position``."""
        start = position + self.rank * self.batch_size
        return [self._order(at) for at in range(start, start + self.batch_size)]

    def partners(self, position: int) -> list[int]:
        """For each of :meth:`rows` another row of its identity, or itself if there is none or none is asked for."""
        start, rows = position + self.rank * self.batch_size, self.rows(position)
        if self._partners is None:
            return rows
        return [self._partners(start + i, row) for i, row in enumerate(rows)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches from the present position on; see :func:`collate`."""
        step = self.batch_size * self.world_size
        if not self.workers:
            while True:
                batch = self._load(self._position)
                self._position += step
                yield batch
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="shard-loader")
        try:
            ahead: deque[Future[dict[str, Any]]] = deque()
            following = self._position
            while True:
                while len(ahead) <= self.workers:
                    ahead.append(pool.submit(self._load, following))
                    following += step
                batch = ahead.popleft().result()
                self._position += step
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, position: int) -> dict[str, Any]:
        batch = collate(self.dataset.samples(self.rows(position), self.columns), self.columns)
        if self.references is not None:
            columns = self.references.columns
            others = collate(self.dataset.samples(self.partners(position), columns), columns)
            batch |= {f"reference_{name}": value for name, value in others.items()}
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where it stands after the batch that was given last; JSON values, the same on every rank."""
        return {
            "position": self._position,
            "seed": self.seed,
            "version": self.dataset.version,
            "samples": len(self.dataset),
            "shares": self.shares,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; ranks and threads may differ from those that saved it.

        Raises:
            CheckpointMismatch: it is of another seed or another version of the data.
        """
        mine = self.state_dict()
        for name in ("seed", "version", "samples", "shares"):
            if state.get(name) != mine[name]:
                raise CheckpointMismatch(
                    f"the checkpoint was made with {name} {state[name]} of the data, this run has {mine[name]}; "
                    "resume with the same, or start anew"
                )
        self._position = int(state["position"])


def _order(dataset: ShardDataset, seed: int, shares: Mapping[str, float] | None) -> Order:
    if shares is None:
        return Shuffled(len(dataset), seed)
    parts = dataset.parts()
    if not parts:
        raise UsageError(
            f"{dataset.store.uri} has no parts to share out: only the source 'mix' labels its samples so; it has "
            f"version {dataset.version} with {len(dataset)} samples"
        )
    return Shared(parts, shares, seed)
