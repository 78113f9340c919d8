"""Parts of parquet files, and the image files that their rows name."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from threading import Lock
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from e4t_core.errors import DataError, StorageError
from e4t_core.storage import Store

V = TypeVar("V")


class Recent(Generic[V]):
    """The values that were used last, each made once however many threads ask for it."""

    def __init__(self, kept: int) -> None:
        self._kept, self._lock = kept, Lock()
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
                if len(self._values) > self._kept:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
            return self._values[key]


@contextlib.contextmanager
def opened(uri: str, footer: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """The file, for reading parts of it.

    Raises:
        DataError: it is no parquet file, or is damaged.
    """
    folder, _, name = uri.rpartition("/")
    with Store(folder or "/").open(name) as handle:
        try:
            yield pq.ParquetFile(handle, metadata=footer)
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
                raise  # the store's own; pyarrow's are bare
            raise DataError(f"{uri} is no parquet file, or is damaged: {error}; make or copy it again") from error


def row_group(uri: str, footer: pq.FileMetaData, group: int, columns: tuple[str, ...]) -> pa.Table:
    with opened(uri, footer) as file:
        return file.read_row_group(group, columns=list(columns))


def target_uri(folder: str, path: str, outside: bool) -> str:
    """The URI of an image that a file in ``folder`` names."""
    full = path if "://" in path or path.startswith("/") else f"{folder}/{path}"
    if not {".", ".."}.intersection(path.split("/")):
        return full
    full = _plain(full)
    if not outside and not full.startswith(f"{_plain(folder)}/"):
        raise OSError(f"the path '{path}' leads out of {folder}; set source.outside=true to allow that")
    return full


def _plain(uri: str) -> str:
    """Without ``.`` and ``..``; local paths absolute."""
    scheme, sign, path = uri.rpartition("://")
    return f"{scheme}{sign}{posixpath.normpath(path) if sign else os.path.abspath(path)}"


def image_file(uri: str) -> bytes:
    """An image file; what is wrong with its name is that row's fault and an OSError, a lost connection is not."""
    folder, _, name = uri.rpartition("/")
    try:
        return Store(folder or "/").read(name)
    except ValueError as error:
        raise OSError(f"{uri!r} is no path: {error}") from error
    except StorageError as error:
        cause = error.__cause__
        if isinstance(cause, _NAMING) or getattr(cause, "errno", None) == errno.ENAMETOOLONG:
            raise OSError(str(error)) from error
        raise


_NAMING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError, ImportError)
"""Behind a StorageError: no such bucket, a folder, a file as a folder, an unknown scheme."""
