"""Parquet files that are written and read a row group at a time, so that no process ever holds all rows."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from e4t_core.errors import DataError
from e4t_core.storage import Store

_GROUP_ROWS = 8192
"""Rows of a row group, unless one table alone has more: a few megabytes in memory, few reads over a network."""


@dataclass(frozen=True)
class Written:
    """A finished local file.

    Attributes:
        sha256: of its bytes, the same for the same tables.
    """

    path: Path
    sha256: str
    rows: int


@contextlib.contextmanager
def written(tables: Iterable[pa.Table], schema: pa.Schema | None = None) -> Iterator[Written]:
    """A local parquet file of all tables in order, there inside the context. A table never lies in two row groups.

    Args:
        tables: of one schema; read one at a time.
        schema: theirs, if there may be none of them.

    Raises:
        ValueError: no table and no schema.
    """
    with tempfile.TemporaryDirectory(prefix="e4t-") as folder:
        path = Path(folder) / "rows.parquet"
        rows = _write(path, tables, schema)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        yield Written(path, sha256, rows)


def _write(path: Path, tables: Iterable[pa.Table], schema: pa.Schema | None) -> int:
    rows = 0
    with contextlib.ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for group in _grouped(tables):
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(path, schema or group.schema, compression="zstd"))
            writer.write_table(group, row_group_size=max(len(group), 1))
            rows += len(group)
        if writer is None:
            if schema is None:
                raise ValueError("no table, and no schema of one")
            pq.write_table(schema.empty_table(), path, compression="zstd")
    return rows


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for table in tables:
        if waiting and sum(map(len, waiting)) + len(table) > _GROUP_ROWS:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
        waiting.append(table)
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


class Index:
    """A stored parquet file whose rows are numbered by units, ascending.

    Args:
        sha256: what its bytes must have; None does not look.

    Raises:
        DataError: it is missing or damaged.
    """

    def __init__(self, store: Store, key: str, sha256: str | None = None) -> None:
        self.store, self.key = store, key
        if sha256 is not None:
            self._check(sha256)
        with self._file() as file:
            self._spans = [_span(file, group) for group in range(file.num_row_groups)]
            self.rows = int(file.metadata.num_rows)
        self._group = lru_cache(maxsize=1)(self._read_group)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows at once, of all columns or of some: for those who can hold them."""
        with self._file() as file:
            return file.read(None if columns is None else list(columns))

    def units(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Each unit with its rows, in order; holds one row group at a time."""
        for group in range(len(self._spans)):
            table = self._read_group(group, columns and (*columns, *(c for c in ("unit",) if c not in columns)))
            for unit in pc.unique(table["unit"]).to_pylist():
                yield unit, table.filter(pc.equal(table["unit"], unit))

    def unit(self, unit: int) -> pa.Table:
        """One unit's rows."""
        found = [n for n, (low, high) in enumerate(self._spans) if low <= unit <= high]
        parts = [table.filter(pc.equal(table["unit"], unit)) for table in map(self._group, found)]
        return pa.concat_tables(parts) if parts else self._group(0).slice(0, 0)

    def _read_group(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        with self._file() as file:
            return file.read_row_group(group, columns=None if columns is None else list(columns))

    @contextlib.contextmanager
    def _file(self) -> Iterator[pq.ParquetFile]:
        try:
            with self.store.open(self.key) as file, pq.ParquetFile(file) as parquet:
                yield parquet
        except FileNotFoundError as error:
            raise DataError(f"{self.store.url(self.key)} is missing, and the manifest names it") from error
        except pa.ArrowInvalid as error:
            raise DataError(f"{self.store.url(self.key)} is damaged: {error}") from error

    def _check(self, sha256: str) -> None:
        try:
            with self.store.open(self.key) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except FileNotFoundError as error:
            raise DataError(f"{self.store.url(self.key)} is missing, and the manifest names it") from error
        if found != sha256:
            raise DataError(f"{self.store.url(self.key)} is damaged: its SHA-256 is not the manifest's")


def _span(file: pq.ParquetFile, group: int) -> tuple[int, int]:
    """The lowest and highest unit of a row group."""
    units = file.read_row_group(group, columns=["unit"])["unit"]
    bounds = pc.min_max(units).as_py()
    return (bounds["min"], bounds["max"]) if bounds["min"] is not None else (0, -1)
