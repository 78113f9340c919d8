"""Figures of finished evaluations, small enough for the repository: studies may be run on several days and machines."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jobs._report.inputs import Entry
from jobs._scores import SCORE

_META = b"e4t"
_NAMED = ("identity", "prompt", "kind", "index")


def keep(entry: Entry, path: Path) -> None:
    """Write what the page needs of a finished evaluation to ``path``: its score rows, its aggregates, its recipe."""
    meta = {
        "figures": entry.figures,
        "evaluate": entry.result["record"]["recipe"]["evaluate"],
        "recipe_hash": entry.result["recipe_hash"],
        "created": entry.result["created"],
    }
    columns = [name for name in entry.rows.columns if name in _NAMED or name.startswith(SCORE)]
    table = pa.Table.from_pandas(entry.rows[columns], preserve_index=False)
    # judges work in float32: more digits would be noise that does not compress
    types = [pa.float32() if field.type == pa.float64() else field.type for field in table.schema]
    table = table.cast(pa.schema(list(zip(table.schema.names, types, strict=True))))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({_META: json.dumps(meta)}), path, compression="zstd")


def load(path: Path, series: int) -> Entry:
    """What :func:`keep` wrote, without pictures."""
    table = pq.read_table(path)
    meta = json.loads(table.schema.metadata[_META])
    rows: pd.DataFrame = table.replace_schema_metadata().to_pandas()
    result = {**meta, "record": {"recipe": {"evaluate": meta["evaluate"]}}}
    return Entry(path.stem, series, meta["figures"], rows, result, place="")
