"""The schema of what evaluations rest on: one row per (method, identity, prompt, image). Every figure is a query on it.

The sentence about each column travels in the parquet files themselves, as the field's metadata ``about``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from e4t_core.metrics import Metric

HELD_OUT = "_heldout"
SCORE = "score_"
"""Begins the names of score columns: the metric ``identity`` is not the column ``identity``."""
LOST = "lost_"
"""Begins the names of columns that count real images in which a metric saw nothing."""
FEATURES = "features_"
"""Begins the names of vectors that metrics of sets need: of a unit's own file, not of the joined rows."""

_Column = tuple[str, pa.DataType, str]
_WHAT: tuple[_Column, ...] = (
    ("method", pa.string(), "personalization method"),
    ("identity", pa.string(), "whose image it is"),
    ("prompt", pa.string(), "name of the prompt"),
    ("prompt_text", pa.string(), "the prompt, {} for the concept"),
    ("concept_less", pa.string(), "the prompt without the concept, which CLIP-T compares with"),
    ("kind", pa.string(), "group of the prompt: plain, style, background, accessory, full_body"),
    ("index", pa.int32(), "number among the images of its identity and prompt"),
    ("seed", pa.int64(), "of its initial noise, the same for every method"),
)
_PLACE: tuple[_Column, ...] = (
    ("unit", pa.int32(), "committed unit of work"),
    ("offset", pa.int64(), "of the image in its unit's tar"),
    ("size", pa.int64(), "bytes of the image there"),
    ("crc32", pa.int64(), "of these bytes"),
)
_COST: tuple[_Column, ...] = (
    ("seconds_generate", pa.float64(), "to draw this image: its batch's time over the batch's images"),
    ("steps", pa.int32(), "optimizer steps of the identity; this and what follows is the same in all of its rows"),
    ("seconds_personalize", pa.float64(), "to learn the identity, models loaded"),
    ("seconds_setup", pa.float64(), "to load the models, once per worker"),
    ("peak_memory_bytes", pa.int64(), "most memory in use while the identity was learned: GPU, else the process"),
    ("bytes_adapter", pa.int64(), "stored for the identity"),
    ("embedding_norm_json", pa.string(), "norm of the predicted embedding at each denoising step (E4T fig. 7)"),
    ("near", pa.string(), "words that the method says the concept is near to, nearest first"),
    ("input_key", pa.string(), "sample key of the photo that was learned from, the first of several"),
    ("input_keys", pa.list_(pa.string()), "sample keys of all photos that were learned from"),
)
_REAL: tuple[_Column, ...] = (
    ("heldout", pa.int64(), "real images of the identity that the method did not see"),
    ("siblings", pa.int64(), "other images of the same identity and prompt"),
)


def _schema(columns: Iterable[_Column]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"about": about}) for name, kind, about in columns])


IMAGE_ROWS = _schema((*_WHAT, *_PLACE, *_COST))
"""Columns of an image set's index: what an image is, where it lies, what it cost."""
PLACE = tuple(name for name, _, _ in _PLACE)
"""Columns of the index that say where an image lies, not what it is."""


def columns(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Score -> the metric that gives it: each metric's own, and ``<name>_heldout`` for those on real images."""
    out: dict[str, Metric] = {}
    for name, metric in metrics.items():
        out[name] = metric
        if metric.references == "real":
            out[f"{name}{HELD_OUT}"] = metric
    return out


def title(column: str, metric: Metric) -> str:
    """What papers call the score."""
    return f"{metric.title}, held out" if column.endswith(HELD_OUT) else metric.title


def score_rows(metrics: Mapping[str, Metric]) -> pa.Schema:
    """Columns of an evaluation's rows."""
    return _schema((*_WHAT, *_COST, *_REAL, *_lost(metrics), *_scored(metrics)))


def _scored(metrics: Mapping[str, Metric]) -> Iterable[_Column]:
    for column, metric in columns(metrics).items():
        about = f"{title(column, metric)}; null if it could not be computed"
        if metric.references == "siblings":
            about += ", or there are no siblings"
        if column.endswith(HELD_OUT):
            about += ", or nothing is held out"
        yield f"{SCORE}{column}", pa.float64(), about


def _lost(metrics: Mapping[str, Metric]) -> Iterable[_Column]:
    for name, metric in metrics.items():
        if metric.misses:
            yield f"{LOST}{name}", pa.int64(), f"real images of the identity in which {metric.title} saw nothing"


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly these columns; those that an older version did not write are null."""
    there = set(table.column_names)
    columns = [table[f.name].cast(f.type) if f.name in there else pa.nulls(len(table), f.type) for f in schema]
    return pa.table(columns, schema=schema)


def due(column: str, metric: Metric) -> str | None:
    """The column that must be above 0 for the score to be expected; None if it always is."""
    if metric.references == "siblings":
        return "siblings"
    return "heldout" if column.endswith(HELD_OUT) else None


def markdown(schema: pa.Schema) -> Sequence[str]:
    """The schema as the lines of a table, as the README prints it."""
    rows = [f"| `{field.name}` | {field.type} | {field.metadata[b'about'].decode()} |" for field in schema]
    return ["| column | type | |", "|---|---|---|", *rows]


def seen_keys(table: pa.Table) -> set[str]:
    """Keys of the real images that the identities of these rows were learned from; all others are held out. Versions
    from before an identity could have several have ``input_key`` alone."""
    whole = table["input_keys"].to_pylist() if "input_keys" in table.column_names else []
    return {*table["input_key"].to_pylist(), *(key for keys in whole for key in keys or ())}
