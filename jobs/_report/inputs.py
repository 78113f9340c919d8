"""What a report is made from: evaluations and their rows, the images they scored, the shards behind them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from e4t_core.errors import DataError
from e4t_core.record import fingerprint
from e4t_core.schema import image_member
from e4t_core.storage import Store
from jobs._aggregates import identity_means
from jobs._scores import SCORE
from jobs._units import ImageSet
from pipelines.loader import ShardDataset
from pipelines.shards.manifest import Manifest, load_index, load_manifest

_EXAMPLES = 8
_SCHEMA = 1
_PLACE = ("method", "identity", "prompt", "index", "unit", "offset", "size", "crc32")
"""Columns of the images' index that say where an image lies."""
DROPPED = -2
"""In place of a picture's row: it was drawn and scored, and the recipe did not keep it."""
_BETWEEN = "\n"
"""Joins keys, which have no line ends."""
_REPEATED = ("embedding_norm_json", "near")
"""Long texts that are the same in all rows of an identity: held once."""
_READ = (
    "identity", "prompt", "prompt_text", "kind", "index", "input_key", "input_keys", "embedding_norm_json", "near"
)  # fmt: skip
"""Columns of the score rows that a page needs, beside the scores: the rest is in the aggregates already."""


@dataclass
class Entry:
    """One method of one evaluation: a point of the plots, a row of the tables.

    Attributes:
        label: what it is called, short and unique in the report.
        series: which colour it has.
        figures: its aggregates, as ``evaluation.json`` holds them.
        rows: its score rows.
        result: the whole ``evaluation.json``.
        place: where the pictures are. Only what shows one asks for them: figures are whole without.
    """

    label: str
    series: int
    figures: dict[str, Any]
    rows: pd.DataFrame
    result: dict[str, Any]
    place: str

    @cached_property
    def images(self) -> ImageSet:
        """The pictures."""
        return ImageSet.open(self.place)

    @property
    def scores(self) -> dict[str, Any]:
        """Score -> figures, likeness first."""
        return _likeness_first(self.figures["scores"])

    @property
    def kinds(self) -> dict[str, dict[str, Any]]:
        """Kind of prompt -> score -> figures."""
        return {kind: _likeness_first(scores) for kind, scores in self.figures["kinds"].items()}

    @property
    def full_label(self) -> str:
        """The label with its method, where that is not the label."""
        method = str(self.figures["method"])
        return self.label if self.label.startswith(method) else f"{method} ({self.label})"

    def means(self, column: str) -> dict[str, float]:
        """Identity -> mean of one score, of those that have one."""
        return self._means.setdefault(column, identity_means(self.rows, column))

    @cached_property
    def _means(self) -> dict[str, dict[str, float]]:
        return {}

    @cached_property
    def table(self) -> pa.Table:
        """The images' index, no more of it than reading takes: it has long columns, too."""
        return self.images.index.table(_PLACE)

    @cached_property
    def pictured(self) -> frozenset[str]:
        """Identities whose pictures were kept."""
        ours = self.table.filter(pc.field("method") == self.figures["method"])
        return frozenset(pc.unique(ours["identity"]).to_pylist())

    @cached_property
    def _places(self) -> pd.MultiIndex:
        """Of every row of the images' table."""
        return pd.MultiIndex.from_frame(self.table.select(["method", "identity", "prompt", "index"]).to_pandas())

    def places(self, rows: pd.DataFrame) -> np.ndarray:
        """Where in the images' table the pictures of score rows are, (rows,); :data:`DROPPED` for those of identities
        whose pictures ``evaluate`` was told not to keep.

        Raises:
            DataError: one is not there.
        """
        wanted = rows[["identity", "prompt", "index"]].assign(method=self.figures["method"])
        found = self._places.get_indexer(pd.MultiIndex.from_frame(wanted[["method", "identity", "prompt", "index"]]))
        if self.images.manifest.get("drawn", 0) > len(self.images):
            found[~wanted["identity"].isin(self.pictured).to_numpy()] = DROPPED
        if (found == -1).any():
            lost = wanted[found == -1].iloc[0]
            raise DataError(
                f"{self.images.store.uri} has no image {lost['prompt']}/{lost['index']} of '{lost['identity']}', which "
                "was scored; give the --images that evaluate was given"
            )
        return found

    def pictures(self, rows: pd.DataFrame) -> list[bytes]:
        """Encoded images of score rows, in their order.

        Raises:
            DataError: one is not there.
        """
        return self.read(self.places(rows).tolist())

    def read(self, places: Sequence[int]) -> list[bytes]:
        """Encoded images of rows of :attr:`table`, in their order."""
        return self.images.read_of(self.table.take(pa.array(places, pa.int64())))

    @cached_property
    def learned_from(self) -> dict[str, list[str]]:
        """Identity -> sample keys of the photos that it was learned from, in the order in which they were drawn."""
        once = self.rows.drop_duplicates("identity")
        keys = once["input_keys"] if "input_keys" in once else once["input_key"]
        return {
            str(who): [first] if pd.isna(several) else str(several).split(_BETWEEN)
            for who, first, several in zip(once["identity"], once["input_key"], keys, strict=True)
        }

    @cached_property
    def first(self) -> pd.DataFrame:
        """Of every identity and prompt the row of the first image."""
        return self.rows.sort_values("index", kind="stable").drop_duplicates(["identity", "prompt"]).sort_index()


def photos_of(identity: str, entries: Sequence[Entry]) -> list[str]:
    """Sample keys of all photos that any entry learned the identity from."""
    return list(dict.fromkeys(key for entry in entries for key in entry.learned_from.get(identity, ())))


def likeness_of(entries: Sequence[Entry]) -> str | None:
    """The score that stands for likeness where entries are shown together: the first that all of them have."""
    return next((score for score in ("identity", "clip_i") if all(score in entry.scores for entry in entries)), None)


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
        (figures, _rows(Store(uri), result, figures["method"]), result, place)
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
    data = io.BytesIO(store.read(result["rows"]))
    names = pq.read_schema(data).names
    file = pq.ParquetFile(data, read_dictionary=[name for name in _REPEATED if name in names])
    wanted = [name for name in names if name in _READ or name.startswith(SCORE)]
    table = file.read([*wanted, "method"]).filter(pc.field("method") == method).select(wanted)
    if "input_keys" in wanted:  # lists, the same in all rows of an identity: one text each
        joined = pc.binary_join(table["input_keys"], _BETWEEN).dictionary_encode()
        table = table.set_column(table.schema.get_field_index("input_keys"), "input_keys", joined)
    return table.to_pandas()


def _labels(names: Sequence[tuple[str, str]]) -> list[str]:
    """The method; the recipe where all are of one method; both where some are; numbered where even that is the same."""
    methods, pairs, seen = Counter(m for m, _ in names), Counter(names), Counter[tuple[str, str]]()
    out = []
    for name in names:
        seen[name] += 1
        shared = name[1] if len(methods) == 1 else f"{name[0]} ({name[1]})"
        label = name[0] if methods[name[0]] == 1 else shared
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
    def fingerprint(self) -> str:
        """Of the images' content."""
        return fingerprint({str(n): ref.sha256 for n, ref in self.manifest.refs("ingest").items()})

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
