"""``lsun``: one category of LSUN as published, an LMDB environment of encoded images."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import lmdb
from pydantic import field_validator

from e4t_core.errors import DataError, StorageError, UsageError
from e4t_core.record import content_hash
from e4t_core.storage import Entry, Store
from pipelines.sources._listing import open_folder, smaller
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem

_FILE = "data.mdb"
_SHOWN = 5
_PIECE = 32 << 20
_CLOSING_S = 10.0
"""Longest that closing an environment may take."""


class LsunConfig(SourceConfig):
    """Which category it is.

    Attributes:
        category: the label ``class``; without it the folder's name, ``cat`` of ``cat_train_lmdb``.
        cache: local folder where a remote environment is copied to, once a machine: LMDB maps a local file. Copies of
            earlier versions stay there until somebody deletes them.
    """

    category: str | None = None
    cache: str | None = None

    @field_validator("cache")
    @classmethod
    def _local(cls, cache: str | None) -> str | None:
        if cache and "://" in cache:
            raise ValueError("it must be a local folder, because LMDB maps local files")
        return cache


class Lsun(Source):
    """A folder with data.mdb, an LMDB environment: hexadecimal names -> WebP or JPEG files, as LSUN is published.

    Ids are the names. The ETag of all images is the environment's state, and changes with every write to it. Nobody
    may write while it is read: it is opened without locks, once in a process.
    """

    name: ClassVar[str] = "lsun"
    Config: ClassVar[type[SourceConfig]] = LsunConfig
    config: LsunConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._opened: lmdb.Environment | None = None

    def __reduce__(self) -> tuple[type[Lsun], tuple[LsunConfig]]:
        return type(self), (self.config,)  # the environment stays in its process

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        """Stream the listing, in id order.

        Raises:
            UsageError: no path is given, or it is remote and no ``cache`` is.
            DataError: no environment is there, it is cut off or damaged, or a key is no text.
            StorageError: it may not be read, or not be copied to the cache.
        """
        return islice(self._all(), smaller(limit, self.config.limit))

    def read(self, item: SourceItem) -> RawSample:
        """One image.

        Raises:
            FileNotFoundError: its key is gone.
            OSError: its page is damaged.
        """
        try:
            with self._environment().begin() as transaction:
                image = transaction.get(item.id.encode())
        except lmdb.Error as error:
            raise OSError(f"the environment is damaged: {error}") from error
        if image is None:
            raise FileNotFoundError(f"{item.uri} has no such key")
        return RawSample(image)

    def _all(self) -> Iterator[SourceItem]:
        environment, store = self._environment(), Store(self.config.path or "")
        uri, folder = store.url(_FILE), PurePosixPath(store.root).name
        labels = {"class": self.config.category or re.sub(r"(_train|_val)?_lmdb$", "", folder)}
        info = environment.info()
        etag = f"{environment.stat()['entries']}-{info['last_pgno']}-{info['last_txnid']}"
        try:
            with environment.begin() as transaction:
                # keys come in id order, as UTF-8 sorts like its text; asked for a value's size, lmdb reads all of it
                for key in transaction.cursor().iternext(keys=True, values=False):
                    name = _text(key, uri)
                    yield SourceItem(name, f"{uri}#{name}", etag, labels)
        except lmdb.Error as error:
            raise DataError(f"{uri} is damaged: {error}; copy it again") from error

    def _environment(self) -> lmdb.Environment:
        if self._opened is None:
            self._opened = _environment(self._local_file())
        return self._opened

    def _local_file(self) -> str:
        c = self.config
        store = open_folder(c.path, self.name)
        if store.local:
            file = f"{store.root}/{_FILE}"
            if not os.path.isfile(file):
                raise _missing(store, sorted(path.parent.name for path in Path(store.root).glob(f"*/{_FILE}")))
            return file
        if c.cache is None:
            raise UsageError(
                f"source.path '{c.path}' is remote, and LMDB maps local files: --set source.cache=/a/local/folder with "
                "room for the environment"
            )
        try:
            return _cached(store, c.cache)
        except OSError as error:
            raise StorageError(f"cannot copy {store.url(_FILE)} to source.cache '{c.cache}': {error}") from error


_OPEN: WeakValueDictionary[tuple[int, int], lmdb.Environment] = WeakValueDictionary()
"""By device and inode. LMDB forbids a process to open an environment twice; the last source that goes closes it."""
_OPENING = Lock()


def _environment(file: str) -> lmdb.Environment:
    """The process's environment of ``file``, with all of its pages there.

    Raises:
        DataError: it is empty, cut off, or no LMDB environment.
    """
    with _OPENING:
        info = os.stat(file)
        environment = _OPEN.get((info.st_dev, info.st_ino))
        if environment is None:
            environment = _checked(file, info.st_size)
            _OPEN[info.st_dev, info.st_ino] = environment
        return environment


def _checked(file: str, size: int) -> lmdb.Environment:
    """Opening reads the file's head; reading a page beyond its end would kill the process."""
    if not size:
        raise DataError(f"{file} is empty; copy it again")
    environment = _open(file)
    pages = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < pages:
        environment.close()
        raise DataError(f"{file} is cut off: it has {size} bytes, and its pages need {pages}; copy it again")
    return environment


def _open(file: str) -> lmdb.Environment:
    """The environment; waits for the one of a source that another thread is just letting go of."""
    deadline = time.monotonic() + _CLOSING_S
    while True:
        try:
            # by its file: an environment in a folder is one with the lock file there, which nobody uses
            return lmdb.open(file, subdir=False, readonly=True, lock=False, readahead=False, create=False)
        except lmdb.Error as error:
            if "already open" not in str(error) or time.monotonic() > deadline:
                raise DataError(f"{file} cannot be opened as an LMDB environment: {error}; copy it again") from error
            time.sleep(0.001)


def _text(key: bytes, uri: str) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{uri} has the key {key!r}, which is not UTF-8; LSUN's keys are hexadecimal names") from error


def _missing(store: Store, others: list[str]) -> DataError:
    several = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    found = f"; environments are in its folders {', '.join(others[:_SHOWN])}{several}" if others else ""
    return DataError(
        f"no {_FILE} in '{store.uri}'; source.path must be the folder of one LMDB environment, such as "
        f"cat_train_lmdb{found}"
    )


# --- a copy on this machine


def _cached(store: Store, cache: str) -> str:
    """The copy in ``cache``, made by whoever comes first; everybody else on the machine waits for it."""
    entry = _remote_file(store)
    version = content_hash(f"{store.uri} {entry.etag}".encode(), 16)
    target = os.path.join(cache, f"{PurePosixPath(store.root).name}-{version}.mdb")
    if os.path.exists(target):
        return target
    os.makedirs(cache, exist_ok=True)
    with open(f"{target}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given up by the system when its process dies
        if not os.path.exists(target):
            _copy(store, entry, target)
    return target


def _remote_file(store: Store) -> Entry:
    found = store.entry(_FILE)
    if found is None:
        others = (entry.key for entry in store.list() if entry.key.endswith(f"/{_FILE}"))
        raise _missing(store, [key.removesuffix(f"/{_FILE}") for key in others])
    return found


def _copy(store: Store, entry: Entry, target: str) -> None:
    """Under its name only when it is whole. A killed copy's part is written over by the next."""
    part = f"{target}.part"
    try:
        with open(part, "wb") as file:
            for start in range(0, entry.size, _PIECE):
                file.write(store.read_ranges([(_FILE, start, min(start + _PIECE, entry.size))])[0])
            file.flush()
            os.fsync(file.fileno())
        if os.path.getsize(part) != entry.size or _remote_file(store) != entry:
            raise StorageError(f"{store.url(_FILE)} changed while it was copied; run the same command again")
        os.replace(part, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
