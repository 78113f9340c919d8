"""A notice board: workers anywhere on the cluster tell the driver how far they are."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_POLL_S = 1.0


class _Notices:
    """The actor: a list that only grows."""

    def __init__(self) -> None:
        self.notices: list[Any] = []

    def tell(self, notice: Any) -> None:
        self.notices.append(notice)

    def since(self, seen: int) -> list[Any]:
        return self.notices[seen:]


class _OnCluster:
    """An actor that all nodes reach by its name."""

    def __init__(self) -> None:
        self.name, self.seen = f"board-{uuid.uuid4().hex}", 0
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # on the driver's node: the loss of a worker node must not take it away
        self._owned = ray.remote(num_cpus=0, scheduling_strategy=here, name=self.name)(_Notices).remote()

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "seen": 0}

    @cached_property
    def _actor(self) -> ActorHandle:
        return ray.get_actor(self.name)

    def tell(self, notice: Any) -> None:
        self._actor.tell.remote(notice)

    def news(self) -> list[Any]:
        new: list[Any] = ray.get(self._actor.since.remote(self.seen))
        self.seen += len(new)
        return new


class _OnMachine:
    """A file that all processes of a machine add lines to; unlike an actor, it never takes a core from the work."""

    def __init__(self) -> None:
        handle, self.path = tempfile.mkstemp(prefix="e4t-board-", suffix=".jsonl")
        os.close(handle)
        self.seen = 0
        weakref.finalize(self, Path(self.path).unlink, missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "seen": 0}

    def tell(self, notice: Any) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(handle, json.dumps(notice).encode() + b"\n")  # one write: lines of several processes never mix
        finally:
            os.close(handle)

    def news(self) -> list[Any]:
        with open(self.path, "rb") as file:
            file.seek(self.seen)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # the rest is being written
        self.seen += len(whole)
        return [json.loads(line) for line in whole.split(b"\n")[:-1]]


class Board:
    """Handle of a board; picklable. Telling waits for nobody.

    Args:
        local: whether all that tell are processes of this machine.
    """

    def __init__(self, local: bool) -> None:
        self._held: _OnMachine | _OnCluster = _OnMachine() if local else _OnCluster()

    def tell(self, notice: Any) -> None:
        """Put up one notice, of what JSON has.

        Raises:
            OSError: on one machine, its folder for temporary files is full.
        """
        self._held.tell(notice)

    def read(self) -> list[Any]:
        """Every notice that this handle has not read; all that its own process told are among them."""
        return self._held.news()

    @contextmanager
    def read_by(self, reader: Callable[[Any], None]) -> Iterator[None]:
        """Inside, ``reader`` gets every notice soon after it was told, in order; what has come by then on leaving.

        An exception of ``reader`` is raised on leaving, unless another is already on its way.
        """
        over = threading.Event()
        failed: list[Exception] = []

        def drain() -> None:
            for notice in self.read():
                if not failed:
                    reader(notice)

        def watch() -> None:
            try:
                while not over.wait(_POLL_S):
                    drain()
            except Exception as error:  # noqa: BLE001 -- raised below, in the thread that waits
                failed.append(error)

        thread = threading.Thread(target=watch, daemon=True, name="board")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if failed:
            raise failed[0]
        drain()
