"""A notice board: workers anywhere on the cluster tell the driver how far they are."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
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


class Board:
    """Handle of a board; picklable, a plain name. Telling never waits and never fails the work."""

    def __init__(self) -> None:
        self.name = f"board-{uuid.uuid4().hex}"
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # on the driver's node: the loss of a worker node must not take it away
        self._owned = ray.remote(num_cpus=0, scheduling_strategy=here, name=self.name)(_Notices).remote()

    def __getstate__(self) -> dict[str, str]:
        return {"name": self.name}

    @cached_property
    def _actor(self) -> ActorHandle:
        return ray.get_actor(self.name)

    def tell(self, notice: Any) -> None:
        """Put up one notice (plain values)."""
        self._actor.tell.remote(notice)

    @contextmanager
    def read_by(self, reader: Callable[[Any], None]) -> Iterator[None]:
        """Inside, ``reader`` gets every notice soon after it was told, in order; the rest on leaving.

        An exception of ``reader`` is raised on leaving, unless another is already on its way.
        """
        over, seen = threading.Event(), 0
        failed: list[Exception] = []

        def drain() -> None:
            nonlocal seen
            for notice in ray.get(self._actor.since.remote(seen)):
                seen += 1
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
