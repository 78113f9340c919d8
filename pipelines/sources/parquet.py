"""``parquet``: image bytes or image paths in a column of parquet files, as Hugging Face datasets have them."""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from e4t_core.errors import DataError, UsageError, nearest
from e4t_core.storage import Entry, Store
from pipelines.sources._listing import first_by_id, folders, open_folder, smaller
from pipelines.sources._parquet import Recent, image_file, opened, row_group, target_uri
from pipelines.sources._text import check_length
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem

_EXTENSION = ".parquet"
_LOCATION = re.compile(r"(?P<file>.*?\.parquet)#(?P<row>\d+)(?::(?P<path>.*))?", re.IGNORECASE | re.DOTALL)
_ROWS_AT_ONCE = 8192
_FOOTERS, _GROUPS = 32, 3
"""How many files' footers and how many row groups are kept by :meth:`Parquet.read`."""


class ParquetConfig(SourceConfig):
    """Which columns are taken.

    Attributes:
        image: column of encoded image files (binary, or Hugging Face's struct of ``bytes`` and ``path``), or of their
            paths: absolute, a URI, or relative to the parquet file's folder.
        id: column of ids, text or whole numbers; without it, ``FILE/00000017`` for row 17 of ``FILE.parquet``. A shard
            reads its rows by id, so ids in another order than the rows fetch whole row groups again and again.
        caption: column of sentences.
        labels: columns of text, numbers or booleans; NaN and infinities become null.
        mask: column of encoded masks (binary).
        outside: let paths with ``..`` lead out of the parquet file's folder.
    """

    image: str
    id: str | None = None
    caption: str | None = None
    labels: tuple[str, ...] = ()
    mask: str | None = None
    outside: bool = False


class Parquet(Source):
    """A file *.parquet, or all of them in a folder and its subfolders, one row an image.

    Local, ``s3://`` and whatever fsspec knows. Listing reads the columns of ids, labels and paths, never image bytes.
    Reading keeps the last few row groups, since a shard's rows lie side by side.
    """

    name: ClassVar[str] = "parquet"
    Config: ClassVar[type[SourceConfig]] = ParquetConfig
    config: ParquetConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._footers: Recent[_Footer] = Recent(_FOOTERS)
        self._groups: Recent[pa.Table] = Recent(_GROUPS)

    def __reduce__(self) -> tuple[type[Parquet], tuple[ParquetConfig]]:
        return type(self), (self.config,)  # locks and row groups stay in their process

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        """Stream the listing.

        Raises:
            UsageError: no path is given, or a file lacks a column that the recipe names.
            DataError: no parquet file is there, one is damaged, a column has the wrong type, an id is null.
            StorageError: it may not be listed or read.
        """
        return first_by_id(self._all(), smaller(limit, self.config.limit))

    def read(self, item: SourceItem) -> RawSample:
        """One row's image, caption and mask.

        Raises:
            FileNotFoundError: the parquet file, its row or the image file is gone.
            OSError: the row has no image, its caption is too long, its row group is damaged, or its path leads out of
                the folder.
        """
        c = self.config
        found = _LOCATION.fullmatch(item.uri)
        if found is None:
            raise OSError(f"'{item.uri}' is no FILE.parquet#ROW")
        columns = [name for name in (None if found["path"] else c.image, c.caption, c.mask) if name]
        cells = self._cells(found["file"], int(found["row"]), tuple(dict.fromkeys(columns))) if columns else {}
        image = found["path"] or cells[c.image]
        if isinstance(image, dict):
            image = image["bytes"] or image.get("path")
        if image is None or image == "":
            raise OSError(f"the column '{c.image}' holds no image there")
        if isinstance(image, str):
            image = image_file(target_uri(found["file"].rpartition("/")[0], image, c.outside))
        caption = (cells[c.caption] if c.caption else None) or ""
        check_length(len(caption.encode()), f"the column '{c.caption}'")
        return RawSample(image, cells[c.mask] if c.mask else None, caption.strip() or None)

    # --- listing

    def _all(self) -> Iterator[SourceItem]:
        files = 0
        for store, entry in _files(self.config.path):
            files += 1
            try:
                yield from self._rows(store, entry)
            except FileNotFoundError as error:
                raise DataError(f"{store.url(entry.key)} was listed but is gone; put it back") from error
        if not files:
            raise DataError(f"no parquet file in '{self.config.path}' or its subfolders; looked for *{_EXTENSION}")

    def _rows(self, store: Store, entry: Entry) -> Iterator[SourceItem]:
        c, uri = self.config, store.url(entry.key)
        with opened(uri) as file:
            self._check(file.schema_arrow, uri)
            path = c.image if _fits(file.schema_arrow.field(c.image).type, _TEXT) else None
            columns = list(dict.fromkeys(name for name in (c.id, path, *c.labels) if name))
            batches = file.iter_batches(_ROWS_AT_ONCE, columns=columns)
            for row, cells in enumerate(cells for batch in batches for cells in batch.to_pylist()):
                target = f":{cells[path]}" if path and cells[path] else ""
                labels = {name: _json(cells[name]) for name in c.labels}
                yield SourceItem(self._id(cells, entry, row), f"{uri}#{row}{target}", f"{entry.etag}#{row}", labels)

    def _id(self, cells: Mapping[str, Any], entry: Entry, row: int) -> str:
        if self.config.id is None:
            return f"{entry.key[: -len(_EXTENSION)]}/{row:08d}"  # padded, so that ids and rows have one order
        if (value := cells[self.config.id]) is None:
            raise DataError(f"{entry.key}, row {row}: source.id '{self.config.id}' is null; give every row an id")
        return str(value)

    def _check(self, schema: pa.Schema, uri: str) -> None:
        c = self.config
        named = [("image", c.image), ("id", c.id), ("caption", c.caption), ("mask", c.mask)]
        named += [("labels", column) for column in c.labels]
        for field, column in named:
            types, right = _FITS[field]
            if column is None:
                continue
            if column not in schema.names:
                raise UsageError(f"source.{field} '{column}' is no column of {uri}{nearest(column, schema.names)}")
            if not _fits(kind := schema.field(column).type, types):
                raise DataError(f"{uri}: source.{field} '{column}' is of type {kind}; it must be {right}")

    # --- reading

    def _cells(self, uri: str, row: int, columns: tuple[str, ...]) -> dict[str, Any]:
        """One row of the file, from a row group that is kept or fetched."""
        try:
            footer, starts = self._footers.get(uri, lambda: self._footer(uri))
            if row >= starts[-1]:
                raise FileNotFoundError(f"{uri} has {starts[-1]} rows now")
            group = bisect.bisect_right(starts, row) - 1
            table = self._groups.get((uri, group, columns), lambda: row_group(uri, footer, group, columns))
            return {name: table.column(name)[row - starts[group]].as_py() for name in columns}
        except (DataError, UnicodeDecodeError) as error:  # one file's fault: its rows are quarantined
            raise OSError(str(error)) from error

    def _footer(self, uri: str) -> _Footer:
        with opened(uri) as file:
            self._check(file.schema_arrow, uri)
            sizes = (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
            return file.metadata, [0, *accumulate(sizes)]


_Footer = tuple[pq.FileMetaData, list[int]]
"""A file's metadata, and the first row of each row group, with the number of rows at the end."""


def _files(path: str | None) -> Iterator[tuple[Store, Entry]]:
    """Every parquet file at ``path``, with the store of the folder that was given or that it lies in."""
    if path and (lone := _lone(path)):
        yield lone
        return
    store = open_folder(path, Parquet.name)
    for _, entries in folders(store):
        yield from ((store, entry) for entry in entries if _is_parquet(entry.key))


def _lone(path: str) -> tuple[Store, Entry] | None:
    """The file at ``path``, if there is one; object stores have folders of that name, too."""
    folder, slash, name = path.rstrip("/").rpartition("/")
    if not _is_parquet(name):
        return None
    store = Store(folder or slash or ".")
    entry = store.entry(name)
    return None if entry is None else (store, entry)


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(_EXTENSION)


_TEXT, _BYTES, _WHOLE = r"(large_)?string(_view)?", r"(large_)?binary(_view)?|fixed_size_binary\[\d+\]", r"u?int\d+"
_FITS = {
    "image": (
        rf"{_BYTES}|{_TEXT}|struct<([^<>]*, )?bytes: (large_)?binary\b[^<>]*>",
        "binary, a struct with binary 'bytes', or text",
    ),
    "id": (rf"{_TEXT}|{_WHOLE}", "text or whole numbers"),
    "caption": (_TEXT, "text"),
    "labels": (
        rf"{_TEXT}|{_WHOLE}|bool|float|double|null",
        "text, numbers or booleans; write it as text first",
    ),
    "mask": (_BYTES, "binary"),
}
"""For each field that names columns: the Arrow types that they may have, and how to say that."""


def _fits(kind: pa.DataType, types: str) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return re.fullmatch(types, str(kind)) is not None
