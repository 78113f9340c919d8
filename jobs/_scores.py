"""Scores: one parquet row per generated image, made unit by unit and kept, so that a killed evaluation continues.

A unit's object is written whole under a name that holds the fingerprint of all that decides its content
(``scores/<unit>-<fingerprint>.parquet``): that it exists means that it is done. Beside the scores it has the vectors
that metrics of sets need (``features_<metric>``), which are never read together.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from e4t_core.backbones.config import Models
from e4t_core.errors import DataError
from e4t_core.images import decode_image
from e4t_core.metrics import METRICS, BaseMetric, Metric, MetricConfig, SetMetric
from e4t_core.record import content_hash, fingerprint
from e4t_core.schema import image_member
from e4t_core.storage import Store
from jobs._rows import FEATURES, HELD_OUT, LOST, PLACE, SCORE, columns, seen_keys
from jobs._units import ImageSet
from pipelines.loader import ShardDataset

SCHEMA = 2
_RESOURCES = {"device", "batch_size"}
_CHUNK = 32
"""Images that are decoded at once, whatever an identity has: 100 MB at 512 pixels."""

Metrics = Mapping[str, BaseMetric]


def build(metrics: Mapping[str, MetricConfig], models: Models, device: str) -> dict[str, BaseMetric]:
    """The configured metrics, not loaded; those without a device of their own run on ``device``."""
    return {name: METRICS.get(name)(config, models, device) for name, config in metrics.items()}


def per_image(metrics: Metrics) -> dict[str, Metric]:
    """Those that score images one by one."""
    return {name: metric for name, metric in metrics.items() if isinstance(metric, Metric)}


def of_sets(metrics: Metrics) -> dict[str, SetMetric]:
    """Those that score all images together."""
    return {name: metric for name, metric in metrics.items() if isinstance(metric, SetMetric)}


def judges(metrics: Metrics) -> dict[str, Any]:
    """What of the metrics decides their figures: settings without resources, and the weights they judge with."""
    return {
        name: {
            "settings": {k: v for k, v in metric.config.dump().items() if k not in _RESOURCES},
            "models": metric.models.dump(),
            "weights": metric.weights(),
        }
        for name, metric in metrics.items()
    }


def sight(metric: BaseMetric) -> dict[str, str]:
    """What decides a metric's vectors."""
    return {"space": metric.space, "weights": metric.weights()}


def unit_keys(images: ImageSet, references: str, metrics: Metrics) -> dict[int, str]:
    """Unit -> key of its scores.

    Args:
        references: content fingerprint of the real images.
    """
    facts, out = {"schema": SCHEMA, "references": references, "metrics": judged(metrics)}, {}
    for unit, rows in images.index.units():
        content = content_hash(json.dumps(rows.to_pylist(), sort_keys=True).encode())
        out[unit] = score_key(unit, {**facts, "images": content})
    return out


def score_key(unit: int, made_from: Mapping[str, Any]) -> str:
    """Of the scores of a unit that are made from these facts."""
    return f"scores/{unit:06d}-{fingerprint(made_from)}.parquet"


def judged(metrics: Metrics) -> dict[str, Any]:
    """What decides the content of units' scores: of metrics of sets, their vectors alone."""
    return {**judges(per_image(metrics)), **{name: sight(metric) for name, metric in of_sets(metrics).items()}}


def read_unit(store: Store, key: str, wanted: Callable[[str], bool]) -> pa.Table:
    """Columns of one unit's rows, those whose name is ``wanted``.

    Raises:
        DataError: it is damaged.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(store.read(key)))
        return file.read(columns=[name for name in file.schema_arrow.names if wanted(name)])
    except pa.ArrowInvalid as error:
        raise DataError(f"{store.url(key)} is damaged ({error}); delete it and run evaluate again") from error


def read_scores(store: Store, keys: Sequence[str]) -> Iterator[pa.Table]:
    """Each unit's rows without vectors, in the order of ``keys``."""
    for key in keys:
        yield read_unit(store, key, lambda name: not name.startswith(FEATURES))


def to_parquet(table: pa.Table) -> bytes:
    """The same bytes for the same rows."""
    out = io.BytesIO()
    pq.write_table(table.combine_chunks(), out, compression="zstd")
    return out.getvalue()


@dataclass
class Scorer:
    """Scores units; loads its models when the first one comes.

    Attributes:
        images, shards, out: URIs of the generated images, the real ones, and the evaluation.
        version: of the shards' manifest.
        metrics, models: recipe sections.
        threads: torch threads.
        device: torch device string.
    """

    images: str
    shards: str
    version: int
    out: str
    metrics: Mapping[str, MetricConfig]
    models: Models
    threads: int
    device: str

    def run(self, task: tuple[int, str]) -> int:
        """Score one unit and keep its rows under the given key; the number of images."""
        unit, key = task
        table = self.score(unit)
        # Whoever raced us wrote the same rows: both come from what the key's fingerprint covers.
        Store(self.out).create(key, to_parquet(table))
        return int(table.num_rows)

    def score(self, unit: int) -> pa.Table:
        """The unit's rows of the image index with one column per score, null where an image cannot be scored."""
        part = self._images.index.unit(unit)
        people = pc.unique(part["identity"]).to_pylist()
        return pa.concat_tables([self._identity(part.filter(pc.equal(part["identity"], who)), who) for who in people])

    def _identity(self, part: pa.Table, identity: str) -> pa.Table:
        loaded, single = self._loaded, per_image(self._loaded)
        generated = embedded(self._pictures(part, identity), loaded)
        concept, heldout = self._real(identity, seen_keys(part))
        others = [metric for metric in single.values() if metric.references != "siblings"]
        seen = embedded(self._photos(concept), others)
        unseen = embedded(self._photos(heldout), [metric for metric in others if metric.references == "real"])
        facts = {"heldout": [len(heldout)] * part.num_rows, "siblings": _siblings(part)}
        table = part.drop_columns(list(PLACE))
        for name, values in facts.items():
            table = table.append_column(name, pa.array(values, pa.int64()))
        for name, metric in single.items():
            if metric.misses:
                missing = sum(int(s[name].isnan().any(1).sum()) for s in (seen, unseen) if name in s)
                table = table.append_column(f"{LOST}{name}", pa.array([missing] * part.num_rows, pa.int64()))
        for column, metric in columns(single).items():
            scores = _scores(column, metric, part, generated, seen, unseen)
            table = table.append_column(f"{SCORE}{column}", scores)
        for name in of_sets(loaded):
            table = table.append_column(f"{FEATURES}{name}", vector_column(generated[name]))
        return table

    def _pictures(self, part: pa.Table, identity: str) -> Iterator[Tensor]:
        """Generated images in chunks."""
        for at in range(0, part.num_rows, _CHUNK):
            rows = part.slice(at, _CHUNK)
            what = rows.select(["prompt", "index"]).to_pylist()
            data = self._encoded(rows)
            yield torch.stack(
                [
                    decode_image(d, f"image {w['prompt']}/{w['index']} of '{identity}'")
                    for d, w in zip(data, what, strict=True)
                ]
            )

    def _encoded(self, rows: pa.Table) -> list[bytes]:
        """The bytes of generated images."""
        return self._images.read_of(rows)

    def _real(self, identity: str, inputs: set[str]) -> tuple[list[int], list[int]]:
        """Rows of the images that the method saw, and of the identity's others."""
        rows = self._people.get(identity, [])
        keys = self._dataset.table["key"].take(pa.array(rows, pa.int64())).to_pylist()
        if missing := inputs - set(keys):
            raise DataError(
                f"{self.shards} version {self.version} has no sample '{sorted(missing)[0]}' of '{identity}', "
                f"from which images in {self.images} were made; give the --shards that generate was given"
            )
        seen = [row for row, key in zip(rows, keys, strict=True) if key in inputs]
        return seen, [row for row in rows if row not in set(seen)]

    def _photos(self, rows: Sequence[int]) -> Iterator[Tensor]:
        """Real images in chunks."""
        yield from photos(self._dataset, rows)

    @cached_property
    def _images(self) -> ImageSet:
        return ImageSet.open(self.images)

    @cached_property
    def _dataset(self) -> ShardDataset:
        return ShardDataset.open(self.shards, self.version)

    @cached_property
    def _people(self) -> dict[str, list[int]]:
        return self._dataset.identities()

    @cached_property
    def _loaded(self) -> dict[str, BaseMetric]:
        torch.set_num_threads(self.threads)
        built = build(self.metrics, self.models, self.device)
        for metric in built.values():
            metric.setup()
        return built


def photos(dataset: ShardDataset, rows: Sequence[int]) -> Iterator[Tensor]:
    """Real images in chunks, each (B, 3, H, W) in [-1, 1]."""
    for at in range(0, len(rows), _CHUNK):
        samples = dataset.samples(rows[at : at + _CHUNK], ["ingest"])
        yield torch.stack([decode_image(s[image_member(s)], f"'{s['__id__']}'") for s in samples])


def embedded(chunks: Iterator[Tensor], metrics: Metrics | Sequence[BaseMetric]) -> dict[str, Tensor]:
    """Metric -> (B, E) vectors of all images of the chunks: one pass for all metrics of one space on one device."""
    found: dict[tuple[str, str], list[Tensor]] = {}
    wanted = list(metrics.values() if isinstance(metrics, Mapping) else metrics)
    eyes = {(metric.space, metric.device): metric for metric in wanted}
    for images_B3HW in chunks:
        for place, metric in eyes.items():
            found.setdefault(place, []).append(metric.embed(images_B3HW))
    joined = {place: torch.cat(parts) for place, parts in found.items()}
    return {m.name: joined[m.space, m.device] for m in wanted if (m.space, m.device) in joined}


def _siblings(part: pa.Table) -> list[int]:
    """Other images of each image's prompt."""
    prompts = part["prompt"].to_pylist()
    return [prompts.count(prompt) - 1 for prompt in prompts]


def _scores(
    column: str,
    metric: Metric,
    part: pa.Table,
    generated: Mapping[str, Tensor],
    seen: Mapping[str, Tensor],
    unseen: Mapping[str, Tensor],
) -> pa.Array:
    """One score of all images of an identity; null where there is none."""
    drawn_BE, texts = generated[metric.name], part["concept_less"].to_pylist()
    if metric.references == "siblings":
        return _array(_among_siblings(metric, drawn_BE, part["prompt"].to_pylist(), texts))
    apart = column.endswith(HELD_OUT) and metric.references == "real"
    sources = [unseen] if apart else [seen, unseen] if metric.references == "real" else [seen]
    known = [source[metric.name] for source in sources if metric.name in source]
    if not known:
        return pa.nulls(len(drawn_BE), pa.float64())
    return _array(metric.compare(drawn_BE, torch.cat(known), texts))


def _among_siblings(metric: Metric, drawn_BE: Tensor, prompts: Sequence[str], texts: Sequence[str]) -> Tensor:
    scores_B = torch.full((len(drawn_BE),), torch.nan)
    for prompt in dict.fromkeys(prompts):
        rows = [row for row, name in enumerate(prompts) if name == prompt]
        group_nE = drawn_BE[rows]
        scores_B[rows] = metric.compare(group_nE, group_nE, [texts[row] for row in rows])
    return scores_B


def _array(values_B: Tensor) -> pa.Array:
    return pa.array([None if math.isnan(v) else v for v in values_B.double().tolist()], pa.float64())


def vector_column(vectors_BE: Tensor) -> pa.Array:
    """(B, E) as a column of fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors_BE.float().numpy().ravel()), vectors_BE.shape[1])


def vectors_of(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """(B, E) out of such a column."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(column), -1)
