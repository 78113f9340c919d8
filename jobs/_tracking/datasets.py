"""Committed stores as MLflow datasets: which version a run read, and how to open it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from mlflow.data import dataset_source_registry
from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource
from mlflow.types import ColSpec, DataType, Schema

from e4t_core.storage import Store
from jobs._lineage import shown
from jobs._units import IMAGE_ROWS, ImageSet
from pipelines.loader import ShardDataset
from pipelines.shards.manifest import load_manifest

_READERS: dict[str, Callable[[str, int], ShardDataset | ImageSet]] = {
    "shards": ShardDataset.open,
    "images": ImageSet.open,
}


class StoreSource(DatasetSource):
    """A version of a store.

    Attributes:
        kind: ``shards`` (of preprocess) or ``images`` (of generate).
        uri: of the store.
        version: of its manifest.
    """

    def __init__(self, kind: str, uri: str, version: int) -> None:
        self.kind, self.uri, self.version = kind, uri, version

    @staticmethod
    def _get_source_type() -> str:
        return "e4t_store"

    def load(self) -> ShardDataset | ImageSet:
        """The version, opened for reading.

        Raises:
            DataError: it is no longer there, or damaged.
            UsageError: the store has no such version.
        """
        return _READERS[self.kind](self.uri, self.version)

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False  # a path alone does not say which version

    @classmethod
    def _resolve(cls, raw_source: Any) -> StoreSource:
        raise NotImplementedError("a store is named by kind, URI and version: StoreSource(kind, uri, version)")

    def to_dict(self) -> dict[str, Any]:
        """JSON values that :meth:`from_dict` reads."""
        return {"kind": self.kind, "uri": shown(self.uri), "version": self.version}

    @classmethod
    def from_dict(cls, source_dict: Mapping[Any, Any]) -> StoreSource:
        """The source that :meth:`to_dict` told of."""
        return cls(source_dict["kind"], source_dict["uri"], source_dict["version"])


class StoreDataset(Dataset):
    """A version of a store as a run's input; the digest is its content's fingerprint."""

    def __init__(
        self, source: StoreSource, digest: str, columns: Mapping[str, DataType], counts: Mapping[str, int]
    ) -> None:
        self._columns, self._counts = dict(columns), dict(counts)
        name = source.uri.rstrip("/").rpartition("/")[2] or source.uri
        super().__init__(source, f"{source.kind} {name} #{source.version}", digest)

    @classmethod
    def shards(cls, uri: str, version: int, digest: str) -> StoreDataset:
        """Shards that ``preprocess`` committed."""
        head = load_manifest(Store(uri), version).head
        columns = dict.fromkeys(head["stages"], DataType.binary)
        counts = {key: head[key] for key in ("samples", "quarantined")}
        return cls(StoreSource("shards", uri, version), digest, columns, counts)

    @classmethod
    def images(cls, uri: str, manifest: Mapping[str, Any], digest: str) -> StoreDataset:
        """Images that ``generate`` committed."""
        columns = {**dict.fromkeys(IMAGE_ROWS.names, DataType.string), "png": DataType.binary}
        counts = {key: manifest[key] for key in ("images", "identities") if key in manifest}
        return cls(StoreSource("images", uri, manifest["version"]), digest, columns, counts)

    def to_dict(self) -> dict[str, str]:
        """What MLflow keeps."""
        return {**super().to_dict(), "schema": json.dumps(self.schema), "profile": json.dumps(self.profile)}

    def _compute_digest(self) -> str:
        raise NotImplementedError("the digest is the fingerprint that the job has: give it")

    @property
    def schema(self) -> dict[str, Any]:
        """Its columns, in MLflow's form."""
        return {"mlflow_colspec": Schema([ColSpec(kind, name) for name, kind in self._columns.items()]).to_dict()}

    @property
    def profile(self) -> dict[str, int]:
        """How much it holds."""
        return self._counts


dataset_source_registry.register_dataset_source(StoreSource)
