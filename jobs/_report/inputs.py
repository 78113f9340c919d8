"""What a report is made from: evaluations and their rows, the images they scored, the shards behind them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from e4t_core.errors import DataError
from e4t_core.schema import image_member
from e4t_core.storage import Store
from jobs._units import ImageSet
from pipelines.loader import ShardDataset
from pipelines.shards.manifest import Manifest, load_index, load_manifest

_EXAMPLES = 8
_SCHEMA = 1


@dataclass
class Entry:
    """One method of one evaluation: a point of the plots, a row of the tables.

    Attributes:
        label: what it is called, unique in the report.
        series: which colour it has.
        figures: its aggregates, as ``evaluation.json`` holds them.
        rows: its score rows.
        result: the whole ``evaluation.json``.
        images: the pictures.
    """

    label: str
    series: int
    figures: dict[str, Any]
    rows: pd.DataFrame
    result: dict[str, Any]
    images: ImageSet

    @property
    def scores(self) -> dict[str, Any]:
        """Score -> figures, likeness first."""
        return _likeness_first(self.figures["scores"])

    @property
    def kinds(self) -> dict[str, dict[str, Any]]:
        """Kind of prompt -> score -> figures."""
        return {kind: _likeness_first(scores) for kind, scores in self.figures["kinds"].items()}

    @cached_property
    def _places(self) -> dict[tuple[str, str, int], int]:
        names = self.images.table.select(["method", "identity", "prompt", "index"]).to_pylist()
        method = self.figures["method"]
        return {(n["identity"], n["prompt"], n["index"]): row for row, n in enumerate(names) if n["method"] == method}

    def pictures(self, wanted: Sequence[tuple[str, str, int]]) -> list[bytes]:
        """Encoded images by (identity, prompt, index)."""
        return self.images.read([self._places[w] for w in wanted])


def _likeness_first(scores: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(scores.items(), key=lambda item: not item[0].startswith("identity")))


def load_entries(evaluations: Sequence[str], images: Sequence[str]) -> list[Entry]:
    """Every method of every evaluation.

    Args:
        evaluations: URIs that ``evaluate`` wrote to.
        images: where their pictures are now; empty if they are where ``evaluate`` found them.

    Raises:
        DataError: nothing is there, or a newer e4t wrote it.
    """
    results = [_result(Store(uri)) for uri in evaluations]
    places = images or [result["images"]["uri"] for result in results]
    found = [
        (figures, _rows(Store(uri), result, figures["method"]), result, ImageSet.open(place))
        for uri, result, place in zip(evaluations, results, places, strict=True)
        for figures in result["methods"]
    ]
    labels = _labels([(figures["method"], result["name"]) for figures, _, result, _ in found])
    return [Entry(labels[i], i, *parts) for i, parts in enumerate(found)]


def _result(store: Store) -> dict[str, Any]:
    try:
        result = store.read_json("evaluation.json")
    except FileNotFoundError as error:
        raise DataError(
            f"{store.uri} holds no finished evaluation; `python -m jobs evaluate --out {store.uri}` makes one"
        ) from error
    if result["schema"] > _SCHEMA:
        raise DataError(f"{store.uri} has evaluation schema {result['schema']}; this e4t reads {_SCHEMA}: upgrade e4t")
    return dict(result)


def _rows(store: Store, result: dict[str, Any], method: str) -> pd.DataFrame:
    table = pq.read_table(io.BytesIO(store.read(result["rows"]))).to_pandas()
    return table[table["method"] == method]


def _labels(names: Sequence[tuple[str, str]]) -> list[str]:
    """The method; with its recipe where two evaluations share it; numbered where even that is the same."""
    methods, pairs, seen = Counter(m for m, _ in names), Counter(names), Counter[tuple[str, str]]()
    out = []
    for name in names:
        seen[name] += 1
        label = name[0] if methods[name[0]] == 1 else f"{name[0]} ({name[1]})"
        out.append(label if pairs[name] == 1 else f"{label} #{seen[name]}")
    return out


@dataclass
class Shards:
    """The real images.

    Attributes:
        uri: of the store.
        manifest: the version in use.
    """

    uri: str
    manifest: Manifest

    @classmethod
    def load(cls, uri: str, version: int | None) -> Shards:
        """Open a version of the store."""
        return cls(uri, load_manifest(Store(uri), version))

    @cached_property
    def _dataset(self) -> ShardDataset:
        return ShardDataset.open(self.uri, self.manifest.version)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self._dataset.table["key"].to_pylist())}

    def photos(self, keys: Sequence[str]) -> list[bytes]:
        """Encoded images of samples, by key.

        Raises:
            DataError: a sample is not in this store.
        """
        if missing := [key for key in keys if key not in self._row_of]:
            raise DataError(
                f"{self.uri} version {self.manifest.version} has no sample '{missing[0]}', which the images were made "
                "from; give the --shards that generate was given"
            )
        samples = self._dataset.samples([self._row_of[key] for key in keys], ["ingest"])
        return [sample[image_member(sample)] for sample in samples]

    def quarantined(self) -> list[dict[str, str]]:
        """Some of the quarantined samples, with reason and message."""
        index = load_index(Store(self.uri), self.manifest).select(["id", "status", "reason", "message"]).to_pylist()
        return [row for row in index if row["status"] == "quarantined"][:_EXAMPLES]
