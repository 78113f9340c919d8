"""Scores: one parquet row per generated image, made unit by unit and kept, so that a killed evaluation continues.

A unit's object is written whole under a name that holds the fingerprint of all that decides its content
(``scores/<unit>-<fingerprint>.parquet``): that it exists means that it is done.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from e4t_core.backbones.config import Models
from e4t_core.errors import DataError
from e4t_core.images import decode_image
from e4t_core.metrics import METRICS, Metric, MetricConfig
from e4t_core.record import content_hash, fingerprint
from e4t_core.schema import image_member
from e4t_core.storage import Store
from jobs._units import ImageSet
from pipelines.loader import ShardDataset

SCHEMA = 1
HELD_OUT = "_heldout"
SCORE = "score_"
"""Begins the names of score columns: the metric ``identity`` is not the column ``identity``."""
_PLACE = ("unit", "offset", "size", "crc32")
"""Columns of the image index that say where an image lies, not what it is."""
_RESOURCES = {"device", "batch_size"}


def build(metrics: Mapping[str, MetricConfig], models: Models, device: str) -> dict[str, Metric]:
    """The configured metrics, not loaded; those without a device of their own run on ``device``."""
    return {name: METRICS.get(name)(config, models, device) for name, config in metrics.items()}


def columns(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Score -> the metric that gives it: each metric's own, and ``<name>_heldout`` for those on real images."""
    out: dict[str, Metric] = {}
    for name, metric in metrics.items():
        out[name] = metric
        if metric.references == "real":
            out[f"{name}{HELD_OUT}"] = metric
    return out


def judges(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """What of the metrics decides a score: settings without resources, and the weights they judge with."""
    return {
        name: {
            "settings": {k: v for k, v in metric.config.dump().items() if k not in _RESOURCES},
            "models": metric.models.dump(),
            "weights": metric.weights(),
        }
        for name, metric in metrics.items()
    }


def unit_keys(images: ImageSet, references: str, metrics: Mapping[str, Metric]) -> dict[int, str]:
    """Unit -> key of its scores.

    Args:
        references: content fingerprint of the real images.
    """
    judged = judges(metrics)
    out = {}
    for unit, rows in by_unit(images.table).items():
        facts = json.dumps(images.table.take(pa.array(rows)).to_pylist(), sort_keys=True).encode()
        made_from = {"schema": SCHEMA, "images": content_hash(facts), "references": references, "metrics": judged}
        out[unit] = f"scores/{unit:06d}-{fingerprint(made_from)}.parquet"
    return out


def by_unit(table: pa.Table) -> dict[int, list[int]]:
    """Unit -> rows of the image index, both ascending."""
    out: dict[int, list[int]] = {}
    for row, unit in enumerate(table["unit"].to_pylist()):
        out.setdefault(unit, []).append(row)
    return dict(sorted(out.items()))


def read_scores(store: Store, keys: Sequence[str]) -> pa.Table:
    """All units' rows, in the order of ``keys``.

    Raises:
        DataError: one is damaged.
    """
    return pa.concat_tables([_read_unit(store, key) for key in keys])


def _read_unit(store: Store, key: str) -> pa.Table:
    try:
        return pq.read_table(io.BytesIO(store.read(key)))
    except pa.ArrowInvalid as error:
        raise DataError(f"{store.url(key)} is damaged ({error}); delete it and run evaluate again") from error


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
        return table.num_rows

    def score(self, unit: int) -> pa.Table:
        """The unit's rows of the image index with one column per score, null where an image cannot be scored."""
        rows = pa.array(self._units[unit])
        part = self._images.table.take(rows).append_column("row", rows)
        people = pc.unique(part["identity"]).to_pylist()
        return pa.concat_tables([self._identity(part.filter(pc.equal(part["identity"], who)), who) for who in people])

    def _identity(self, part: pa.Table, identity: str) -> pa.Table:
        data = self._images.read(part["row"].to_pylist())
        what = [
            f"image {r['prompt']}/{r['index']} of '{identity}'" for r in part.select(["prompt", "index"]).to_pylist()
        ]
        generated_B3HW = torch.stack([decode_image(d, w) for d, w in zip(data, what, strict=True)])
        concept_N3HW, heldout_N3HW = self._real(identity, set(part["input_key"].to_pylist()))
        prompts = part["concept_less"].to_pylist()
        table = part.drop_columns(["row", *_PLACE]).append_column(
            "heldout", pa.array([len(heldout_N3HW)] * part.num_rows)
        )
        for column, metric in columns(self._metrics).items():
            real = metric.references == "real"
            references = torch.cat([concept_N3HW, heldout_N3HW]) if real else concept_N3HW
            if column.endswith(HELD_OUT) and real:
                references = heldout_N3HW
            table = table.append_column(f"{SCORE}{column}", _scores(metric, generated_B3HW, references, prompts))
        return table

    def _real(self, identity: str, inputs: set[str]) -> tuple[Tensor, Tensor]:
        """The images that the method saw, and the identity's others."""
        rows = self._people.get(identity, [])
        samples = self._dataset.samples(rows, ["ingest"]) if rows else []
        known = {s["__key__"]: decode_image(s[image_member(s)], f"'{s['__id__']}'") for s in samples}
        if missing := inputs - known.keys():
            raise DataError(
                f"{self.shards} version {self.version} has no sample '{sorted(missing)[0]}' of '{identity}', "
                f"from which images in {self.images} were made; give the --shards that generate was given"
            )
        seen = [image for key, image in known.items() if key in inputs]
        others = [image for key, image in known.items() if key not in inputs]
        return torch.stack(seen), torch.stack(others) if others else seen[0].new_zeros(0, *seen[0].shape)

    @cached_property
    def _images(self) -> ImageSet:
        return ImageSet.open(self.images)

    @cached_property
    def _units(self) -> dict[int, list[int]]:
        return by_unit(self._images.table)

    @cached_property
    def _dataset(self) -> ShardDataset:
        return ShardDataset.open(self.shards, self.version)

    @cached_property
    def _people(self) -> dict[str, list[int]]:
        return self._dataset.identities()

    @cached_property
    def _metrics(self) -> dict[str, Metric]:
        torch.set_num_threads(self.threads)
        built = build(self.metrics, self.models, self.device)
        for metric in built.values():
            metric.setup()
        return built


def _scores(metric: Metric, generated: Tensor, references: Tensor, prompts: Sequence[str]) -> pa.Array:
    if not len(references):
        return pa.nulls(len(generated), pa.float64())
    values = metric(generated, references, prompts).double().tolist()
    return pa.array([None if math.isnan(v) else v for v in values], pa.float64())
