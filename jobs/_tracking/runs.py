"""The handles that jobs hold: a tracker for an experiment, and its runs."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from mlflow.data.dataset import Dataset
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from e4t_core.storage import Store
from jobs._lineage import shown
from jobs._sections import MlflowConfig
from jobs._tracking.events import Event, Kind, RunName, as_params, flatten, metric_name, now_ms
from jobs._tracking.link import Link
from jobs._tracking.places import BRIEF, Away, TrackingError, absolute, beside, patience, sqlite_path
from jobs._tracking.spool import Spool

__all__ = ["PARENT_TAG", "Run", "Tracker", "flatten"]
PARENT_TAG = MLFLOW_PARENT_RUN_ID
_FLUSH_SECONDS = 5.0


@dataclass(frozen=True)
class Tracker:
    """An experiment on a tracking store.

    Attributes:
        link: the way there.
        experiment: experiment name.
    """

    link: Link
    experiment: str

    @classmethod
    def open(cls, config: MlflowConfig, out: str | None = None, must_answer: bool = False) -> Tracker:
        """Reach the store and make sure of the experiment, before any work is spent.

        The URI is ``config.uri``, else ``MLFLOW_TRACKING_URI``, else sqlite in the folder ``out`` (in the current
        folder if ``out`` is remote or None). A server that does not answer is no reason to stop: what is logged waits
        in ``out`` until it does, and a warning says so.

        Args:
            must_answer: raise if the server does not answer, for commands that do nothing without one.

        Raises:
            TrackingError: the store refuses, or is none; nothing logged there would ever arrive.
        """
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it creates
        uri = absolute(config.uri or os.environ.get("MLFLOW_TRACKING_URI") or beside(out))
        link = Link(uri, None if must_answer or out is None else Spool(Store(_absolute_folder(out))))
        try:
            with patience(BRIEF):
                link.reach(config.experiment)
        except Away as error:
            if link.spool is None:
                raise
            link.pause(error.__cause__ or error)
        return cls(link, config.experiment)

    @classmethod
    def again(cls, logged: Mapping[str, Any], config: MlflowConfig, out: str) -> Run:
        """The benchmark's run that ``evaluate`` logged to, on a store that may have a newer address now.

        Args:
            logged: what a result file says of it.
            config: the recipe's; if neither it nor the environment names a store, it is where it was.
            out: where what is logged waits if the store does not answer.

        Raises:
            TrackingError: the store refuses, or is an sqlite file that is not there any more.
        """
        uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or logged["uri"]
        database = sqlite_path(uri)
        if database is not None and not database.exists():  # MLflow would make an empty one
            raise TrackingError(f"there is no MLflow database at {database}; set mlflow.uri to where it is now")
        tracker = cls.open(MlflowConfig(uri=uri, experiment=logged["experiment"]), out)
        known = {"name": "benchmark", "experiment": logged["experiment"], "id": logged["parent"]}
        return Run(tracker.link, RunName.of(logged.get("benchmark") or known))

    @property
    def uri(self) -> str:
        """Tracking URI, absolute, so that a worker in another directory means the same store."""
        return self.link.uri

    def start(
        self,
        name: str,
        params: Mapping[str, Any],
        parent: Run | None = None,
        tags: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Run:
        """Start a run, or go on with the one that has this ``key``.

        Args:
            params: nested values are flattened to dotted names, long values split over ``name``, ``name.part2``...
                A run that goes on keeps those it has; MLflow never lets one change.
            parent: the run that this one is shown under.
            tags: further tags.
            key: what makes it this run and no other; None for a new run.
        """
        above = parent.name if parent else None
        named = RunName(name, self.experiment, key or uuid.uuid4().hex, parent=above, tags=dict(tags or {}))
        run = Run(self.link, named)
        run.log("begin", params=as_params(params))
        return run

    def standing(self) -> str:
        """Where the figures are, for a log line: on the store, or waiting for it."""
        return self.link.standing(f"experiment '{self.experiment}' at {shown(self.uri)}")


@dataclass
class Run:
    """One MLflow run. Picklable: a copy in a Ray worker logs to the same run.

    Nothing here waits for a store that is away, or fails because of it (see :class:`Link`). As a context manager it
    flushes at the end and closes as FINISHED, as KILLED when interrupted, as FAILED on any other exception.
    """

    link: Link
    name: RunName
    _waiting: list[tuple[str, float, int, int]] = field(default_factory=list, repr=False)
    _sent: float = field(default=0.0, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Run, (self.link, self.name)

    @property
    def id(self) -> str | None:
        """MLflow's id of the run; None while the store has not told it."""
        return self.link.known_id(self.name)

    @property
    def uri(self) -> str:
        """Tracking URI."""
        return self.link.uri

    def log(self, kind: Kind, path: str | os.PathLike[str] | None = None, **body: Any) -> None:
        """Log one event."""
        self.link.send(Event(self.name, kind, body), path)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self.log("tags", tags={key: str(value) for key, value in tags.items()})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Note finite values; they are sent together every few seconds.

        What a run that was begun by another process has of a step stays, and is not logged again: a resumed job may
        repeat itself.
        """
        now = now_ms()
        self._waiting += [(metric_name(k), float(v), now, step) for k, v in values.items() if math.isfinite(v)]
        if time.monotonic() - self._sent >= _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send every noted metric."""
        if self._waiting:
            self.log("metrics", metrics=self._waiting)
            self._waiting = []
        self._sent = time.monotonic()

    def artifact(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Upload one local file, under ``folder`` of the run's artifacts."""
        self.log("file", path, name=Path(path).name, folder=folder)

    def artifact_from(self, store: Store, key: str, folder: str | None = None) -> None:
        """Upload the object ``key`` of a store."""
        with store.as_local(key) as path:
            self.artifact(path, folder)

    def content(self, name: str, data: bytes, folder: str | None = None) -> None:
        """Upload ``data`` as the artifact ``name``."""
        with tempfile.TemporaryDirectory(prefix="e4t-") as scratch:
            path = Path(scratch) / name
            path.write_bytes(data)
            self.artifact(path, folder)

    def json(self, name: str, value: Mapping[str, Any]) -> None:
        """Upload ``value`` as the artifact ``name``."""
        self.content(name, (json.dumps(value, indent=1) + "\n").encode())

    def inputs(self, datasets: Sequence[Dataset], context: str) -> None:
        """Say which data the run read: ``context`` is ``training``, ``evaluation``..."""
        entities = [dict(dataset._to_mlflow_entity()) for dataset in datasets]
        self.log("inputs", datasets=entities, context=context)

    def close(self, status: str = "FINISHED") -> None:
        """Flush and end the run as ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self.flush()
        self.log("end", status=status, time=now_ms())

    def facts(self) -> dict[str, Any]:
        """What finds the run again, for a result file: see :meth:`Tracker.run`."""
        return asdict(self.name)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            return self.close()
        self.close("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")


def _absolute_folder(out: str) -> str:
    """A worker with a copy of a run spools to the same folder."""
    store = Store(out)
    return store.root if store.local else store.uri
