"""Events that could not be sent, in the folder of the run they are about.

==============================================  ================================================================
``mlflow-spool/<time>-<random>.json``           one event; by name in the order of happening
``mlflow-spool/<time>-<random>.bin``            the content of an artifact, written before its event
==============================================  ================================================================
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from e4t_core.storage import Store
from jobs._tracking.events import Event

FOLDER = "mlflow-spool"


class Spool:
    """What waits below one folder or prefix. Files are written whole and synced; deleting one is what marks it sent."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._stamp = 0

    def __reduce__(self) -> tuple[type[Spool], tuple[Store]]:
        return Spool, (self.store,)

    @classmethod
    def below(cls, uri: str) -> list[Spool]:
        """Every spool with something in it at ``uri`` or in a folder under it."""
        store = Store(uri)
        found: dict[str, None] = {}
        for entry in store.list():
            place, slash, _ = f"/{entry.key}".rpartition(f"/{FOLDER}/")
            if slash:
                found[place.strip("/")] = None
        return [cls(store / place if place else store) for place in found]

    @property
    def uri(self) -> str:
        """Where it is."""
        return self.store.url(FOLDER)

    def waiting(self) -> list[str]:
        """Keys of the events, oldest first."""
        return [entry.key for entry in self.store.list(FOLDER) if entry.key.endswith(".json")]

    def add(self, event: Event, path: str | os.PathLike[str] | None = None) -> None:
        """Keep an event, and the file that it is about; when this returns, a power cut does not lose it."""
        stem = self._stem()
        if path is not None:
            self.store.put(f"{stem}.bin", Path(path).read_bytes())
        self.store.put(f"{stem}.json", event.to_json())

    def read(self, key: str) -> Event | None:
        """An event; None if somebody else has sent it meanwhile.

        Raises:
            DataError: the file is damaged.
        """
        try:
            return Event.from_json(self.store.read(key), self.store.url(key))
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def file(self, key: str, event: Event) -> Iterator[Path | None]:
        """The event's file under its own name; None if it has none."""
        if event.kind != "file":
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="e4t-") as folder:
            path = Path(folder) / event.body["name"]
            path.write_bytes(self.store.read(_content(key)))
            yield path

    def drop(self, key: str) -> None:
        """The event was sent."""
        self.store.delete(key)
        self.store.delete(_content(key))

    def _stem(self) -> str:
        self._stamp = max(self._stamp + 1, time.time_ns())  # clocks are set back
        return f"{FOLDER}/{self._stamp:020d}-{uuid.uuid4().hex[:8]}"


def _content(key: str) -> str:
    return key.removesuffix(".json") + ".bin"
