"""Walking a dataset's folders, shared by the sources that read files."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Iterable, Iterator

from e4t_core.errors import DataError, StorageError, UsageError
from e4t_core.storage import Entry, Store
from pipelines.sources.base import SourceItem

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

Folder = tuple[str, list[Entry]]
"""A folder's key below the root (empty for the root itself), and the files directly in it."""


def is_image(name: str) -> bool:
    """Whether the name ends like an image file; the content is judged when it is decoded."""
    return name.lower().endswith(IMAGE_EXTENSIONS)


def smaller(*limits: int | None) -> int | None:
    """The smallest of the given limits; None is no limit."""
    return min((n for n in limits if n is not None), default=None)


def first_by_id(items: Iterable[SourceItem], limit: int | None) -> Iterator[SourceItem]:
    """All items as they come, or the first ``limit`` in id order."""
    if limit is None:
        yield from items
    else:
        yield from heapq.nsmallest(limit, items, key=lambda item: item.id)


def open_folder(path: str | None, source: str) -> Store:
    """The dataset's root.

    Raises:
        UsageError: the recipe names none.
        DataError: nothing is there, or a file is.
    """
    if not path:
        raise UsageError(f"source '{source}' needs a folder: --set source.path=/data/images or s3://bucket/prefix")
    store = Store(path)
    if store.local and not os.path.isdir(store.root or "/"):
        kind = "is a file" if os.path.exists(store.root) else "does not exist"
        raise DataError(f"source.path '{path}' {kind}; give the folder that holds the images")
    return store


def above(store: Store) -> Store | None:
    """The folder that holds this one; None at the top of a bucket."""
    if store.local:
        return Store(os.path.dirname(store.root) or "/")
    folder = store.uri.rpartition("/")[0]
    return None if folder.endswith("/") else Store(folder)


def beside(stores: Iterable[Store | None], *names: str) -> str | None:
    """The URI of the first of these files that is in one of the folders: where datasets publish their lists."""
    return next((store.url(name) for store in stores if store for name in names if _visible(store, name)), None)


def _visible(store: Store, name: str) -> bool:
    try:
        return store.exists(name)
    except StorageError as error:
        if isinstance(error.__cause__, PermissionError):
            return False  # nobody asked for it, and the folder above the images may be somebody else's
        raise


def folders(store: Store) -> Iterator[Folder]:
    """Every folder that holds files, with its files in name order. Hidden names (leading dot) are left out.

    Memory is that of one folder and its parents, beside what listing the store itself takes.

    Raises:
        StorageError: a folder cannot be listed.
        DataError: a file's name is not Unicode.
    """
    if store.local:
        yield from _local(store.root or "/", "", ())
        return
    try:
        yield from _remote(store.list())
    except FileNotFoundError as error:
        raise DataError(f"source.path '{store.uri}' does not exist; give the folder that holds the images") from error


def _local(path: str, key: str, above: tuple[tuple[int, int], ...]) -> Iterator[Folder]:
    """Unlike :meth:`Store.list`, a folder that may not be opened is an error and not left out."""
    try:
        with os.scandir(path) as found:
            children = sorted((c for c in found if not c.name.startswith(".")), key=lambda c: c.name)
        here = os.stat(path)
        looked = [(child, _look(child)) for child in children]
    except OSError as error:
        raise StorageError(f"cannot list '{path}': {error}; its permissions must allow reading") from error
    if (identity := (here.st_dev, here.st_ino)) in above:
        return  # a link to a folder that is being listed
    files = [_entry(_key(child, key), info) for child, info in looked if _is_file(info)]
    if files:
        yield key, files
    for child, info in looked:
        if stat.S_ISDIR(info.st_mode):
            yield from _local(child.path, _key(child, key), (*above, identity))


def _look(child: os.DirEntry[str]) -> os.stat_result:
    """What the name leads to; the link itself where that is gone, so that reading it says so."""
    try:
        return child.stat()
    except OSError:
        if child.is_symlink():
            return child.stat(follow_symlinks=False)
        raise


def _is_file(info: os.stat_result) -> bool:
    return stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)


def _entry(key: str, info: os.stat_result) -> Entry:
    return Entry(key, info.st_size, f"{info.st_size}-{info.st_mtime_ns}", info.st_mtime)


def _key(child: os.DirEntry[str], folder: str) -> str:
    key = f"{folder}/{child.name}" if folder else child.name
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the name {os.fsencode(child.path)!r} is not UTF-8, so it has no stable id; rename it"
        ) from error
    return key


def _remote(entries: Iterable[Entry]) -> Iterator[Folder]:
    """Group a listing in key order by folder; a folder is complete when the listing has left it."""
    open_now: list[Folder] = []
    for entry in entries:
        folder, _, name = entry.key.rpartition("/")
        if not name or any(part.startswith(".") for part in entry.key.split("/")):
            continue
        while open_now and not _inside(folder, open_now[-1][0]):
            yield open_now.pop()
        if not open_now or open_now[-1][0] != folder:
            open_now.append((folder, []))
        open_now[-1][1].append(entry)
    yield from reversed(open_now)


def _inside(folder: str, parent: str) -> bool:
    return not parent or folder == parent or folder.startswith(f"{parent}/")
