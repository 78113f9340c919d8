"""One small store interface over local folders, ``s3://`` and anything else fsspec knows.

Three ways to write, and no others (the commit protocol rests on them):

- :meth:`Store.put`, :meth:`Store.put_file` -- whole object, atomic: a reader sees all of it or nothing;
- :meth:`Store.create` -- the same, but only if nothing is there: exactly one of many racing writers wins;
- :meth:`Store.delete`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from e4t_core._refusals import code_of, library_errors, reason_of
from e4t_core.bundled import SCHEME, bundled_folder
from e4t_core.errors import DataError, StorageError

_PAGE = 1000
"""Keys of one answer when S3 is listed: the most that it gives."""

_ASIDE = ".tmp-"
"""In the names of local files that are still being written."""


@dataclass(frozen=True)
class Entry:
    """One listed object: its key inside the store, size in bytes, and a string that changes when its content does."""

    key: str
    size: int
    etag: str
    modified: float


class Store:
    """Objects under one URI.

    Args:
        uri: a local path, ``file://``, ``s3://bucket/prefix`` or any fsspec URL. S3 endpoint and keys come from
            the usual ``AWS_*`` environment variables. ``bundled:NAME`` is what ships with the package, on any machine.
    """

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        self.uri = os.fspath(uri).rstrip("/") or "/"
        try:
            self.fs, root = fsspec.core.url_to_fs(_located(self.uri))
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"cannot open '{uri}': {error}; use a local path, s3://bucket/prefix or another fsspec URL"
            ) from error
        self.root = root.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)
        self._refusals: tuple[type[Exception], ...] = (OSError, *library_errors(self.fs))

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.uri,)

    def __truediv__(self, key: str) -> Store:
        return Store(self.url(key))

    def url(self, key: str) -> str:
        """The full URI of ``key``."""
        return f"{self.uri}/{key}"

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    # --- reading

    def read(self, key: str) -> bytes:
        """All bytes of ``key``.

        Raises:
            FileNotFoundError: no such object.
            StorageError: the location refuses reads.
        """
        with self._told("read", key):
            self._fresh()
            return bytes(self.fs.cat_file(self._path(key)))

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Bytes ``[start, end)`` of each ``(key, start, end)``, fetched concurrently where the store can."""
        with self._told("read", ranges[0][0] if ranges else ""):
            paths = [self._path(key) for key, _, _ in ranges]
            if self.local:
                return [_pread(path, start, end) for path, (_, start, end) in zip(paths, ranges, strict=True)]
            return self.fs.cat_ranges(paths, [r[1] for r in ranges], [r[2] for r in ranges], on_error="raise")

    def read_json(self, key: str) -> Any:
        """Parse ``key`` as JSON.

        Raises:
            DataError: the object is not JSON.
        """
        try:
            return json.loads(self.read(key))
        except ValueError as error:
            raise DataError(f"{self.url(key)} is not JSON: {error}") from error

    def exists(self, key: str) -> bool:
        """Whether ``key`` is there now."""
        with self._told("look up", key):
            self._fresh()
            return bool(self.fs.exists(self._path(key)))

    def entry(self, key: str) -> Entry | None:
        """What a listing says of the object at ``key``; None if there is none."""
        with self._told("look up", key):
            self._fresh()
            try:
                info = self.fs.info(self._path(key))
            except FileNotFoundError as error:
                if code_of(error) == "NoSuchBucket":
                    raise
                return None
        return None if info["type"] == "directory" else _entry(key, info)

    def size(self, key: str) -> int | None:
        """Bytes of the object at ``key``; None if there is none."""
        found = self.entry(key)
        return None if found is None else found.size

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[IO[bytes]]:
        """A seekable file for reading parts of ``key`` (a parquet row group, a hash in pieces)."""
        with self._told("read", key):
            self._fresh()
            with self.fs.open(self._path(key), "rb", **({} if self.local else {"cache_type": "none"})) as file:
                yield file

    def list(self, prefix: str = "", unfinished: bool = False) -> Iterator[Entry]:
        """Every object whose key lies under the folder ``prefix``, in key order. S3 is listed a page at a time, as the
        caller asks for more; other stores first take the whole listing into memory.

        Args:
            unfinished: also what local writers that were killed left behind.
        """
        for path, info in self._pages(prefix) if "s3" in self.fs.protocol else self._found(prefix):
            if unfinished or _ASIDE not in path.rsplit("/", 1)[-1]:
                yield _entry(path[len(self.root) + 1 :], info)

    def _found(self, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
        with self._told("list", prefix):
            self._fresh()
            found = self.fs.find(self._path(prefix), detail=True)
        for path in sorted(found):
            yield path, found[path]

    def _pages(self, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
        bucket, _, folder = f"{self._path(prefix)}/".partition("/")
        asked: dict[str, Any] = {"Bucket": bucket, "Prefix": folder, "MaxKeys": _PAGE}
        while True:
            with self._told("list", prefix):
                page = self.fs.call_s3("list_objects_v2", **asked)
            for found in page.get("Contents", ()):
                if not found["Key"].endswith("/"):  # a folder that some console made
                    yield f"{bucket}/{found['Key']}", {**found, "size": found["Size"]}
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    # --- writing

    def put(self, key: str, data: bytes) -> None:
        """Write ``key`` whole; readers see the old object or the new one, never a part."""
        with self._told("write", key):
            if self.local:
                with self._aside(key, data) as aside:
                    os.replace(aside, self._path(key))
                    _sync_folder(aside.parent)
            else:
                self.fs.pipe_file(self._path(key), data)

    def put_file(self, key: str, path: Path) -> None:
        """:meth:`put` the content of a local file, a piece at a time."""
        with self._told("write", key):
            if self.local:
                with self._aside(key, path) as aside:
                    os.replace(aside, self._path(key))
                    _sync_folder(aside.parent)
            else:
                self.fs.put_file(str(path), self._path(key))

    def create(self, key: str, data: bytes) -> bool:
        """Write ``key`` only if it does not exist; False if somebody else was first.

        Local files are linked into place, so a crash leaves nothing half-written under the name;
        object stores use a conditional PUT. Where the answer to one was lost, the client sends it again and is told
        that something is there: if it is ``data``, it was created, so of writers of equal bytes each is told True.
        """
        with self._told("write", key):
            try:
                if self.local:
                    with self._aside(key, data) as aside:
                        os.link(aside, self._path(key))
                        _sync_folder(aside.parent)
                else:
                    self._conditional_put(key, data)
            except FileExistsError:
                return not self.local and self._holds(key, data)
            return True

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.read(key) == data
        except FileNotFoundError:
            return False

    def _conditional_put(self, key: str, data: bytes) -> None:
        for pause in (0.1, 0.3, 1.0, 3.0, None):
            try:
                return self.fs.pipe_file(self._path(key), data, mode="create")
            except OSError as error:
                if code_of(error) in ("PreconditionFailed", "412"):
                    raise FileExistsError(key) from error
                # S3 answers 409 while another writer's PUT is undecided, and asks to try again
                if code_of(error) not in ("ConditionalRequestConflict", "409") or pause is None:
                    raise
                time.sleep(pause)

    def delete(self, key: str) -> None:
        """Remove ``key``; no error if it is already gone."""
        with self._told("delete", key), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self._path(key))

    def write_json(self, key: str, value: Any) -> None:
        """:meth:`put` as indented JSON."""
        self.put(key, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())

    # --- whole files, for tools that need a path

    @contextlib.contextmanager
    def as_local(self, key: str) -> Iterator[Path]:
        """A local path with the content of file or folder ``key``: itself if local, else a temporary download."""
        if self.local:
            yield Path(self._path(key))
            return
        with tempfile.TemporaryDirectory(prefix="e4t-") as folder:
            target = Path(folder) / (key.rsplit("/", 1)[-1] or "root")
            with self._told("read", key):
                self.fs.get(self._path(key), str(target), recursive=bool(self.fs.isdir(self._path(key))))
            yield target

    def put_folder(self, folder: Path, key: str = "") -> None:
        """Upload every file below ``folder`` under ``key``."""
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = path.relative_to(folder).as_posix()
            self.put(f"{key}/{name}" if key else name, path.read_bytes())

    # --- internals

    def _fresh(self) -> None:
        if not self.local:
            self.fs.invalidate_cache()  # another writer may have been here

    @contextlib.contextmanager
    def _aside(self, key: str, data: bytes | Path) -> Iterator[Path]:
        """A synced temporary file beside ``key`` holding ``data``, or what a local file holds; removed on leaving."""
        target = Path(self._path(key))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # not the kind that `create` answers False to
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the way", str(target.parent)) from error
        handle, name = tempfile.mkstemp(prefix=f"{target.name}{_ASIDE}", dir=target.parent)
        aside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                if isinstance(data, Path):
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, file)
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.chmod(0o644)
            yield aside
        finally:
            aside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _told(self, action: str, key: str) -> Iterator[None]:
        """Turn a location's refusal into a message that names it; 'not found' and 'exists' stay as they are.

        The package's own folder may let us write; that counts as refused.
        """
        if action in ("write", "delete") and self.uri.startswith(SCHEME):
            raise StorageError(f"cannot {action} {self.url(key)}: it is part of the installed package; use another URI")
        try:
            yield
        except FileExistsError:
            raise
        except FileNotFoundError as error:
            if code_of(error) != "NoSuchBucket":
                raise
            raise StorageError(f"cannot {action} {self.url(key)}: there is no such bucket; create it first") from error
        except self._refusals as error:
            raise StorageError(f"cannot {action} {self.url(key)}: {reason_of(error)}") from error


def _located(uri: str) -> str:
    return str(bundled_folder(uri)) if uri.startswith(SCHEME) else uri


def _pread(path: str, start: int, end: int) -> bytes:
    with open(path, "rb") as file:
        return os.pread(file.fileno(), end - start, start)


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _entry(key: str, info: dict[str, Any]) -> Entry:
    return Entry(key, int(info["size"]), _etag(info), _modified(info))


def _etag(info: dict[str, Any]) -> str:
    tag = info.get("ETag") or info.get("etag")
    return str(tag).strip('"') if tag else f"{info['size']}-{_modified(info)!r}"


def _modified(info: dict[str, Any]) -> float:
    value = info.get("mtime") or info.get("LastModified") or info.get("created") or 0.0
    return float(value.timestamp()) if hasattr(value, "timestamp") else float(value)
