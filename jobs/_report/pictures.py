"""Every identity's pictures in small, one file each (a contact): inside the page while they are few, else beside it.

A contact is a grid of square cells: the photos that were learned from in its first row, then a row an entry with a
column a prompt. One file an identity keeps a page of the gallery to a handful of requests.
"""

from __future__ import annotations

import io
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from PIL import Image, ImageOps

from e4t_core.record import fingerprint
from e4t_core.storage import Store
from jobs._report.grid import Grid
from jobs._report.inputs import Entry, Shards, photos_of

FOLDER = "report_files"
"""Beside the page."""
_SIDE, _PHOTOS = 128, 8
"""Most pixels of a cell's side, most photos of an identity that are shown."""
_AT_ONCE = 64
"""Pictures that a thread reads at once, but at least one identity's: with the threads this bounds the memory."""
_QUALITY, _EFFORT = 80, 2
"""Of the WebP encoder."""


@dataclass(frozen=True)
class Pictures:
    """The contacts of some identities.

    Attributes:
        names: number of the identity in the grid -> name of its contact.
        photos: number -> photos in the contact's first row.
        side, columns, rows: a cell's pixels, and how many cells a contact has.
        size: bytes of all.
        inside: name -> WebP bytes, if they go into the page; empty if they lie in :data:`FOLDER` beside it.
    """

    names: dict[int, str]
    photos: dict[int, int]
    side: int
    columns: int
    rows: int
    size: int
    inside: dict[str, bytes]


def collect(
    entries: Sequence[Entry],
    grid: Grid,
    shards: Shards,
    numbers: Sequence[int],
    store: Store,
    budget: int,
    done: Callable[[int], object],
) -> Pictures:
    """Make the contacts of some identities, and put them beside the page if they are more than ``budget`` bytes.

    Contacts that lie there already from the same pictures are not made again; others are deleted.

    Args:
        numbers: identities, by their place in the grid.
        store: where the page goes.
        done: told the number of further identities that have theirs.
    """
    maker = _Contacts(entries, grid, shards, numbers)
    shelf = _Shelf(store, budget)
    todo = [n for n in sorted(numbers, key=grid.identities.__getitem__) if not shelf.has(maker.names[n])]
    done(len(numbers) - len(todo))
    step = max(1, _AT_ONCE // (len(entries) * len(grid.prompts)))
    for made in _in_order(maker.make, [todo[at : at + step] for at in range(0, len(todo), step)]):
        for name, data in made.items():
            shelf.add(name, data)
        done(len(made))
    shelf.finish()
    photos = {n: len(maker.keys[n]) for n in numbers}
    return Pictures(maker.names, photos, maker.side, maker.columns, len(entries) + 1, shelf.size, shelf.held)


class _Contacts:
    """Makes contacts; after construction from several threads at once."""

    def __init__(self, entries: Sequence[Entry], grid: Grid, shards: Shards, numbers: Sequence[int]) -> None:
        self.entries, self.grid, self.shards = entries, grid, shards
        self.keys = {n: photos_of(grid.identities[n], entries)[:_PHOTOS] for n in numbers}
        self.columns = max([len(grid.prompts), *(len(keys) for keys in self.keys.values())])
        self.side = _SIDE
        if numbers:  # also opens the shards, before there are threads
            (first,) = shards.photos(self.keys[numbers[0]][:1])
            with Image.open(io.BytesIO(first)) as image:
                self.side = min(max(image.size), _SIDE)

    @cached_property
    def names(self) -> dict[int, str]:
        """Number -> a fingerprint of all that decides the contact."""
        checks = [entry.table["crc32"].to_numpy() for entry in self.entries]
        how = [self.side, self.columns, _QUALITY, _EFFORT, self.shards.fingerprint]
        out = {}
        for n, keys in self.keys.items():
            shown = [
                [int(check[row]) if row >= 0 else None for row in places[n]]
                for check, places in zip(checks, self.grid.pictures, strict=True)
            ]
            out[n] = fingerprint([how, keys, shown])
        return out

    def make(self, numbers: Sequence[int]) -> dict[str, bytes]:
        """Name -> WebP bytes."""
        size = self.columns * self.side, (len(self.entries) + 1) * self.side
        sheets = {n: Image.new("RGB", size) for n in numbers}
        places = [(n, x) for n in numbers for x in range(len(self.keys[n]))]
        self._paste(sheets, places, 0, self.shards.photos([self.keys[n][x] for n, x in places]))
        for row, (entry, pictures) in enumerate(zip(self.entries, self.grid.pictures, strict=True), 1):
            places = [(n, x) for n in numbers for x in range(pictures.shape[1]) if pictures[n, x] >= 0]
            self._paste(sheets, places, row, entry.read([int(pictures[place]) for place in places]))
        return {self.names[n]: _webp(sheet) for n, sheet in sheets.items()}

    def _paste(
        self, sheets: dict[int, Image.Image], places: Sequence[tuple[int, int]], row: int, data: Sequence[bytes]
    ) -> None:
        for (n, x), encoded in zip(places, data, strict=True):
            with Image.open(io.BytesIO(encoded)) as image:
                cell = ImageOps.fit(image.convert("RGB"), (self.side, self.side), Image.Resampling.LANCZOS)
            sheets[n].paste(cell, (x * self.side, row * self.side))


class _Shelf:
    """Holds contacts until they are too many for a page, then puts them beside it."""

    def __init__(self, store: Store, budget: int) -> None:
        self.store, self.budget = store, budget
        self.held: dict[str, bytes] = {}
        self.size = 0
        self._there = {entry.key: entry.size for entry in store.list(FOLDER)}
        self._kept: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether it lies beside the page already; then it stays."""
        if (key := _key(name)) not in self._there:
            return False
        self._kept.add(key)
        self._count(self._there[key])
        return True

    def add(self, name: str, data: bytes) -> None:
        """Keep one that was made."""
        self.held[name] = data
        self._count(len(data))

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > self.budget:
            for name, data in self.held.items():
                self.store.put(_key(name), data)
                self._kept.add(_key(name))
            self.held.clear()

    def finish(self) -> None:
        """Take into the page what lies beside it but fits after all; delete what belongs to neither."""
        if self.size <= self.budget:
            for key in self._kept:
                self.held[key.removeprefix(f"{FOLDER}/").removesuffix(".webp")] = self.store.read(key)
            self._kept.clear()
        for key in self._there.keys() - self._kept:
            if re.fullmatch(rf"{FOLDER}/[0-9a-f]{{16}}\.webp", key):
                self.store.delete(key)


def _key(name: str) -> str:
    return f"{FOLDER}/{name}.webp"


def _webp(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", quality=_QUALITY, method=_EFFORT)
    return out.getvalue()


def _in_order(
    call: Callable[[Sequence[int]], dict[str, bytes]], tasks: Sequence[Sequence[int]]
) -> Iterator[dict[str, bytes]]:
    """Results in the tasks' order, made by a thread a core; no more are waiting than each thread made two."""
    threads = os.cpu_count() or 1
    running: deque[Future[dict[str, bytes]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for task in tasks:
            running.append(pool.submit(call, task))
            if len(running) > 2 * threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
