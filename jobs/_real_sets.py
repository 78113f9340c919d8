"""Real images that metrics of sets compare with, and their vectors.

``references/<fingerprint>/<part>.parquet`` holds the vectors of some of them: made once for all methods and nights that
share shards, network and seed, wherever ``evaluate --cache`` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from e4t_core.backbones.config import Models
from e4t_core.metrics import BaseMetric, MetricConfig, SetMetric
from e4t_core.record import fingerprint
from e4t_core.storage import Store
from jobs._people import stable_seed
from jobs._scores import build, embedded, photos, read_unit, sight, to_parquet, vector_column, vectors_of
from pipelines.loader import ShardDataset
from pipelines.shards.manifest import load_manifest

SCHEMA = 1
_PART = 256
"""Real images whose vectors are written together."""
_VECTOR = "vector"


def ranks(seed: int, what: str, names: Iterable[tuple[str | int, ...]]) -> NDArray[np.int64]:
    """A hash for each name: the lowest are a draw that does not depend on order, and larger draws hold smaller ones."""
    return np.array([stable_seed(seed, what, *name) for name in names], np.int64)


@dataclass(frozen=True)
class Part:
    """Rows of real images, and the key of their vectors."""

    key: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class RealSet:
    """The real images that one metric compares with.

    Attributes:
        metric: its name.
        shards, version: where they are.
        parts: of them, in order.
    """

    metric: str
    shards: str
    version: int
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, metric: SetMetric, shards: str, version: int, seed: int) -> RealSet:
        """Draw them by ``seed`` from the metric's own references, or else from ``shards``.

        Raises:
            DataError: nothing is committed there.
        """
        own = metric.config.references
        dataset = ShardDataset.open(own or shards, None if own else version)
        refs = load_manifest(dataset.store, dataset.version).refs("ingest")
        order = np.argsort(ranks(seed, "real", ((key,) for key in dataset.table["key"].to_pylist())), kind="stable")
        rows = sorted(order[: metric.config.max_images].tolist())
        content = {str(number): ref.sha256 for number, ref in refs.items()}
        made_from = {"schema": SCHEMA, "images": content, "rows": rows, "sight": sight(metric)}
        folder = f"references/{fingerprint(made_from)}"
        starts = range(0, len(rows), _PART)
        parts = [Part(f"{folder}/{at // _PART:06d}.parquet", tuple(rows[at : at + _PART])) for at in starts]
        return cls(metric.name, dataset.store.uri, dataset.version, tuple(parts))

    def __len__(self) -> int:
        return sum(len(part.rows) for part in self.parts)

    def todo(self, cache: Store) -> list[Part]:
        """Parts without vectors."""
        folders = {part.key.rsplit("/", 1)[0] for part in self.parts}
        there = {entry.key for folder in folders for entry in cache.list(folder)}
        return [part for part in self.parts if part.key not in there]

    def vectors(self, cache: Store) -> NDArray[np.float32]:
        """(M, E) of those images that have one.

        Raises:
            DataError: a part is damaged.
        """
        found = [vectors_of(read_unit(cache, part.key, lambda name: name == _VECTOR)[_VECTOR]) for part in self.parts]
        joined = np.concatenate(found) if found else np.zeros((0, 1), np.float32)
        return joined[~np.isnan(joined).any(1)]


@dataclass
class Embedder:
    """Makes the vectors of parts; loads its model when the first one comes."""

    real: RealSet
    cache: str
    config: MetricConfig
    models: Models
    threads: int
    device: str

    def run(self, part: Part) -> int:
        """Embed one part; returns its number of images."""
        vectors_BE = embedded(photos(self._dataset, part.rows), [self._metric])[self.real.metric]
        # Whoever raced us wrote the same vectors: both come from what the key's fingerprint covers.
        Store(self.cache).create(part.key, to_parquet(pa.table({_VECTOR: vector_column(vectors_BE)})))
        return len(part.rows)

    @cached_property
    def _dataset(self) -> ShardDataset:
        return ShardDataset.open(self.real.shards, self.real.version)

    @cached_property
    def _metric(self) -> BaseMetric:
        torch.set_num_threads(self.threads)
        (metric,) = build({self.real.metric: self.config}, self.models, self.device).values()
        metric.setup()
        return metric
